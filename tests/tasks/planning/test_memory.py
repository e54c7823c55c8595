"""What cannot fit is refused before any of it is allocated."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

import pytest

from models.blocks import check_patch
from operators import InputError
from tasks.config.composition import read
from tasks.config.images import Images
from tasks.planning import memory, plan
from tasks.run.execute import execute
from tests.tasks.conftest import TINY

IMAGES = Images(10, 1, (28, 28), (0.5,), (0.5,), (1, 28, 28))
DRAWS = ["task=generation", "model.dim=16", "mixer=pool"]
TOO_LARGE = [
    (["model.dim=10000000"], "make model.dim"),
    (["model.dim=100000000000"], "more than any memory holds"),
    (["model.hidden=1000000000000"], "make model.dim"),
    (["model.depth=1000000"], "GiB of memory|10000"),
    (["data.resolution=100000"], "data.resolution"),
    (["mixer=conv", "mixer.kernel=100001"], "what the mixer stores"),
    (["mixer=random", "data.resolution=4096"], "what the mixer stores"),
    (["mixer=ss2d", "mixer.rank=1000000000"], "make model.dim|rank"),
    (["mixer=pde_ssm", "pde.state=1000000000"], "make model.dim|state"),
    (["shell.expand=64", "model.dim=100000"], "make model.dim"),
    ([*DRAWS, "sample.n=1000000000000"], "make sample.n"),
]


@pytest.mark.parametrize(
    ("overrides", "line"), TOO_LARGE, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_too_large_is_refused_before_memory_is_taken(overrides: Sequence[str], line: str, tmp_path: Path) -> None:
    own = {override.partition("=")[0] for override in overrides}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=line) as caught:
        execute(read([*(o for o in TINY if o.partition("=")[0] not in own), *overrides]), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", [[], ["task=generation"], ["mixer=hybrid"]], ids=["vit", "dit", "hybrid"])
def test_what_is_added_up_is_no_more_than_a_plan_finds(task: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan.make(read([*task, "mode=plan", "plan.peak_tflops=1"]))
    run = read(task)
    monkeypatch.setattr(memory, "available_bytes", lambda _: planned["memory/training"] // 100)
    with pytest.raises(InputError, match="GiB of memory"):
        memory.check(run, IMAGES, planned["batch"])
    drawn = 0 if run.sample is None else run.sample.n * 784 + 8 * run.sample.batch_size * 784
    monkeypatch.setattr(memory, "available_bytes", lambda _: planned["memory/training"] + drawn)
    memory.check(run, IMAGES, planned["batch"])


@pytest.mark.parametrize("depth", [3, 5, 6])
def test_weights_are_those_of_the_whole_pattern(depth: int) -> None:
    run = read(["mixer=hybrid", "mixer.pattern=[pool,attention]", f"model.depth={depth}", "model.dim=32"])
    number, _ = memory._weights(run, IMAGES)
    assert number == memory._numbers(run.build(IMAGES))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [(["model.depth=5000"], "1000 at most"), (["model.dim=100000000000"], "more than any memory holds")],
)
def test_plan_refuses_what_it_cannot_work_through(overrides: list[str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        plan.make(read(["mode=plan", "mixer=pool", *overrides]))


def test_divisors_of_a_large_image_are_found_at_once() -> None:
    with pytest.raises(InputError, match=r"model.patch=7 .* allowed are 1, 2, 4, 5, .*, 1000000000; did you mean 8\?"):
        check_patch(7, (10**9, 10**9))
