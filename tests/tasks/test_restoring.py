"""Every node of a good checkpoint taken out or replaced: one line, or a run that goes on; never a traceback."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import InputError
from tasks import checkpoint, restoring
from tasks.composition import compose
from tasks.execute import _Run, execute
from tests.tasks.conftest import TINY

GONE, NAN, RESHAPED, SWITCHES = object(), object(), object(), object()
VALUES: tuple[Any, ...] = (
    *(GONE, "x", -3, None, [1], {}, float("nan"), 10**30),
    *(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)),
)
OF_TENSORS = (NAN, RESHAPED, SWITCHES)
DEFAULTED = "config"
"""What is missing in there has a default."""


def nodes(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from nodes(inner, (*path, key))


def spoilt(good: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content: Any = deepcopy(good)
    node = content
    for key in path[:-1]:
        node = node[key]
    if value is GONE:
        del node[path[-1]]
    elif value is NAN:
        node[path[-1]] = torch.full_like(node[path[-1]], float("nan"))
    elif value is RESHAPED:
        node[path[-1]] = node[path[-1]][None]
    elif value is SWITCHES:
        node[path[-1]] = torch.zeros(node[path[-1]].shape, dtype=torch.bool)
    else:
        node[path[-1]] = value
    return content


def cases(good: dict[str, Any], share: float) -> Iterator[tuple[tuple[Any, ...], Any, dict[str, Any]]]:
    draw = random.Random(0)
    for path in nodes(good):
        node: Any = good
        for key in path:
            node = node[key]
        floating = isinstance(node, Tensor) and node.is_floating_point()
        for value in (*VALUES, *(OF_TENSORS if floating else ())):
            if draw.random() < share:
                yield path, value, spoilt(good, path, value)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("restoring") / "run"
    execute(compose([*TINY, "trainer.ema=0.9", "trainer.test=false"]), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def good(averaged: Path) -> dict[str, Any]:
    return torch.load(averaged / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def fresh(averaged: Path) -> _Run:
    """The run that would go on from there."""
    config = compose([*TINY, "trainer.ema=0.9"])
    return _Run(config, averaged.parent / "new", (), None)


def line(content: Any, fresh: _Run) -> str | None:
    """What a run that goes on from such a checkpoint says of it, if it says something."""
    if checkpoint.KEY not in content or "state_dict" not in content:
        return "ckpt=x was not written by a run of this program"  # as `checkpoint.load` says
    try:
        checkpoint._check_entry(content, "ckpt=x")
        checkpoint.check_config(content[checkpoint.KEY]["config"], "ckpt=x")
        checkpoint.check_weights(fresh.module, content["state_dict"], "ckpt=x")
        restoring.check_resumable(content, "ckpt=x", fresh.trainer, fresh.module, "auto")
    except InputError as error:
        return " ".join(str(error).split())
    return None


def test_good_checkpoint_is_good(good: dict[str, Any], fresh: _Run) -> None:
    assert line(good, fresh) is None


def test_every_node_that_is_wrong_is_named_in_one_line(good: dict[str, Any], fresh: _Run) -> None:
    used = ("state_dict", "epoch", "global_step", "pytorch-lightning_version", "loops", "callbacks")
    used += ("optimizer_states", "lr_schedulers", "current_model_state", "averaging_state", checkpoint.KEY)
    assert set(used) == set(good)
    missed = []
    for path, value, content in cases(good, 1.0):
        said = line(content, fresh)
        if said is None:
            missed.append((path, value))
        else:
            assert said.startswith("ckpt=x ")
    assert [case for case in missed if not harmless(*case)] == []


def harmless(path: tuple[Any, ...], value: Any) -> bool:
    """Whether a run that goes on there does what it would have done, or a default takes the place."""
    names = [str(part) for part in path]
    return (
        names[:2] == [checkpoint.KEY, DEFAULTED]
        or names[:2] == [checkpoint.KEY, "autoencoder"]  # compared with the run's own later
        or (names[:2] == [checkpoint.KEY, "scores"] and value in (GONE, -3, {}))
        or (names[0] == "loops" and (len(path) == 1 or path[1] != "fit_loop"))  # no other loop is gone on with
        or ("state_dict" in names[-1:] and names[0] == "loops")
        or (names[0] == "optimizer_states" and len(path) == 4 and value is GONE)  # of a parameter without gradients
        or (value is None and names[-1] in ("score", "foreach", "fused", "amsgrad", "maximize", "capturable"))
        or (value is None and names[-1] in ("differentiable", "decoupled_weight_decay", "is_last_batch"))
        or (value == -3 and names[-1] in ("lr", "initial_lr", "weight_decay", "eps", "seconds", "busy"))
        or (value == -3 and len(names) > 1 and names[-2] in ("betas", "base_lrs", "_last_lr"))
    )
