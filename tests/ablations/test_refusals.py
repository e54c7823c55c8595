"""The study's check refuses exactly what the run refuses, in the same words."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import operators
from ablations import plan as plans
from ablations.trials import MAIN, Trial, check, literal
from models.presets import PRESETS
from models.spec import NORMS, POSITIONS
from operators import InputError
from tasks.config import bounds, choices
from tasks.config.composition import compose, read
from tasks.config.training import PRECISIONS
from tasks.planning import memory
from tasks.run.execute import execute
from tasks.system.failure import explain

PLAN = plans.read(
    {
        "name": "refusals",
        "question": "what is refused",
        "objectives": [{"metric": "val/accuracy"}],
        "blocks": [{"name": "b", "factors": {"f": {"key": "model.dim", "levels": [8, 16]}}}],
    }
)
SMALL = ("model.dim=16", "model.depth=2", "data.batch_size=32", "trainer.accelerator=cpu", "logger=none")
BASES = {
    "classification": SMALL,
    "generation": (*SMALL, "task=generation", "task.judge=false", "sample.n=4", "sample.batch_size=4"),
}
TOPS = ("task", "model", "data", "optimizer", "trainer", "logger", "shell", "mixer", "pde", "sample")
FORBIDDEN = ("trainer.devices", "trainer.num_nodes", "trainer.strategy", "data.name", "model.name", "mixer.name")
"""What a study sets itself, or what a group chooses."""
WORDS: Mapping[str, Sequence[Any]] = {
    "model.positions": POSITIONS,
    "model.norm": NORMS,
    "task.path": choices.PATHS,
    "task.prediction": choices.PREDICTIONS,
    "task.times": choices.DISTRIBUTIONS,
    "task.network": choices.NETWORKS,
    "task.autoencoder": ("random", "nowhere", "a/b/c"),
    "sample.solver": choices.SOLVERS,
    "trainer.precision": PRECISIONS,
    "trainer.accelerator": choices.ACCELERATORS,
    "optimizer.schedule": ("cosine", "constant"),
    "pde.terms": ([], ["diffusion"], ["convection", "reaction"], ["diffusion", "diffusion"], "diffusion"),
    "pde.boundary": ("periodic", "neumann", "dirichlet", "absorbing"),
    "pde.coefficients": ("learned", "fixed", {"diffusion": "fixed"}, {"heat": "fixed"}),
    "pde.tensor": ("isotropic", "diagonal", "full"),
    "pde.forcing": ("initial", "constant", "steady"),
    "pde.units": ("image", "pixel"),
    "pde.condition": ("none", "input", "cond"),
    "pde.method": ("auto", "separable", "fft", "compiled", "compiled_fft", "reference"),
    "shell.gate": ("silu", "gelu", "sigmoid", "linear", "none"),
    "shell.norm": ("rms", "layer", "none"),
    "mixer.order": ("row", "col", "hilbert"),
    "mixer.orders": (["row"], ["row", "col"], [], ["row", "row"]),
    "mixer.clamp": ([-0.1, 6.0], [1, 0], [0]),
    "mixer.backend": ("auto", "sdpa", "xformers", "torch", "reference", "cpu", "separable"),
    "mixer.pattern": (["pool"], ["pool", "attention"], ["pool"] * 3, [], "pool", ["nothing"], ["pde_ssm"]),
    "mixer.params": ({}, {"attention": {"heads": 3}}, {"pool": {"size": 2}}, {"conv": {}}),
}
ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 5, 7, 8, 28, 0.5, 1.5, 1e-9, 1e12, 10**6, 10**15),
    *("", "auto", "x", [], [1, 2], {}, {"a": 1}),
)
LIGHTNING_VALUES = (*ODD, 0.0001, 10, 32, "warn", "norm", "value", "simple", "00:00:01:00", {"seconds": 5})


KINDS = ("key", "key", "key", "group", "lightning", "match", "odd")


class Reached(BaseException):
    """The run would begin to train."""


def leaves(node: Any, where: str) -> Iterator[str]:
    if isinstance(node, Mapping) and node:
        for key, inner in node.items():
            yield from leaves(inner, f"{where}.{key}")
    else:
        yield where


@cache
def keys(base: str, mixer: str) -> list[str]:
    """What a run of that task and mixer may be told, by key."""
    config = compose([*BASES[base], f"mixer={mixer}"])
    listed = [key for top in TOPS if top in config for key in leaves(config[top], top)]
    return [key for key in listed if key not in FORBIDDEN]


@cache
def groups(folder: str) -> dict[str, list[str]]:
    """Options of Hydra's groups, good and bad, as lists of overrides."""
    return {
        "mixer": [*operators.names(), "hybrid", "attentoin"],
        "shell": ["common", "published", "project", "final", "commn"],
        "model": [*PRESETS, "vit_huge"],
        "logger": ["none", "csv", "tensorboard", "paper"],
        "data": ["fashion_mnist_mini", "image_folder", f"image_folder data.root={folder} data.resolution=16", "mnist"],
        "task": ["classification", "generation", "segmentation"],
        "trainer": ["default", "smoke", "fast"],
    }


@st.composite
def overrides(draw: st.DrawFn, folder: str) -> tuple[str, ...]:
    """Of run.py: mostly good ones, changed in up to four places in which nothing promises that they fit."""
    base = draw(st.sampled_from(sorted(BASES)))
    mixer = draw(st.sampled_from([*operators.names(), "hybrid"]))
    drawn = [*BASES[base], f"mixer={mixer}"]
    for kind in draw(
        st.lists(st.sampled_from(["key", "key", "key", "group", "lightning", "match", "odd"]), max_size=4)
    ):
        if kind == "key":
            key = draw(st.sampled_from(keys(base, mixer)))
            good = st.sampled_from(WORDS[key]) if key in WORDS else st.integers(0, 64)
            drawn.append(f"{key}={literal(draw(st.one_of(good, good, st.sampled_from(ODD))))}")
        elif kind == "group":
            group = draw(st.sampled_from(sorted(groups(folder))))
            option, *more = draw(st.sampled_from(groups(folder)[group])).split()
            drawn += [f"{group}={option}", *more]
        elif kind == "lightning":
            name = draw(st.sampled_from(sorted(bounds.LIGHTNING)))
            drawn.append(f"+trainer.{name}={literal(draw(st.sampled_from(LIGHTNING_VALUES)))}")
        elif kind == "match":
            budget = draw(st.sampled_from(["params", "macs", "seconds"]))
            drawn.append(f"model.match={{{budget}: {draw(st.sampled_from(['5K', '10K', '1M', '200M', '-1', 'x']))}}}")
        else:
            drawn.append(draw(st.sampled_from(["model.widht=3", "+model.width=3", "~optimizer.lr", "~mixer", "pde=1"])))
    last = {text.partition("=")[0]: text for text in drawn}
    return tuple(last.values())


def refusal_of_run(given_overrides: Sequence[str]) -> str | None:
    """What the run of the overrides says before it trains; None: it would train."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            execute(read([*given_overrides, "seed=0"]), Path(folder) / "run")
        except Reached:
            return None
        except InputError as error:
            return comparable(explain(error)[1])
    raise AssertionError("the run has ended without training")


def refusal_of_study(given_overrides: Sequence[str]) -> str | None:
    """What a study with an arm of these overrides says before it starts."""
    try:
        check(PLAN, [Trial(0, MAIN, "b", "a", 0, {}, tuple(given_overrides))])
    except InputError as error:
        return comparable(explain(InputError(str(error).removeprefix("block b, arm a: ")))[1])
    return None


def comparable(text: str) -> str:
    """Without what changes from one moment to the next."""
    return re.sub(r"besides the \d+ that are open|[\d.,e+-]+ [GM]iB free|ulimit -n \d+", "…", text.strip())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of images: two classes, in three splits."""
    root = tmp_path_factory.mktemp("photographs")
    pixels = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number in range(20):
                image = Image.fromarray(pixels.integers(0, 256, (20, 24, 3), dtype=np.uint8))
                image.save(root / split / label / f"{number}.png")
    return str(root)


@pytest.fixture(scope="module")
def before_training() -> Iterator[None]:
    """A run that ends where it would begin to train, and a machine whose memory does not change meanwhile."""
    with (
        mock.patch.object(lightning.pytorch.Trainer, "fit", side_effect=Reached),
        mock.patch.object(memory, "available_bytes", return_value=2**33),
    ):
        yield


def agree(given_overrides: Sequence[str]) -> str | None:
    """What both say."""
    refusal = refusal_of_study(given_overrides)
    assert refusal == refusal_of_run(given_overrides)
    return refusal


def search(folder: str, examples: int) -> None:
    drawn = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    @drawn
    @given(overrides(folder))
    def holds(given_overrides: tuple[str, ...]) -> None:
        agree(given_overrides)

    holds()


FOUND_LATE = [
    ("data.batch_size=100000",),
    ("data.batch_size=3", "data.augment.mixup=0.5"),
    ("+trainer.val_check_interval=1000",),
    ("+trainer.limit_train_batches=0.0001",),
    ("task=generation", "data.augment.mixup=0.5"),
    ("trainer.accelerator=tpu",),
    ("model.dim=10000000",),
]
"""What the run finds out last."""


@pytest.mark.parametrize("given_overrides", FOUND_LATE, ids=" ".join)
@pytest.mark.usefixtures("before_training")
def test_study_refuses_what_the_run_finds_out_last(given_overrides: tuple[str, ...]) -> None:
    assert agree((*SMALL, *given_overrides)) is not None


@pytest.mark.usefixtures("before_training")
def test_study_accepts_what_the_run_accepts() -> None:
    assert agree(SMALL) is None


@pytest.mark.usefixtures("before_training")
def test_study_refuses_what_the_run_refuses(photographs: str) -> None:
    search(photographs, 4)


@pytest.mark.slow
@pytest.mark.usefixtures("before_training")
def test_study_refuses_what_the_run_refuses_of_many(photographs: str) -> None:
    search(photographs, 600)
