"""Every node of a good checkpoint taken out or replaced: one line, or a run that goes on; never a traceback."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import InputError
from tasks.config.composition import compose, read
from tasks.run import restoring
from tasks.run.execute import execute
from tasks.run.preparing import Run, open_data, prepare
from tasks.system import checkpoint
from tests.tasks.conftest import TINY

GONE, NAN, RESHAPED, SWITCHES = object(), object(), object(), object()
VALUES: tuple[Any, ...] = (
    *(GONE, "x", -3, None, [1], {}, float("nan"), 10**30),
    *(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)),
)
OF_TENSORS = (NAN, RESHAPED, SWITCHES)


def nodes(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from nodes(inner, (*path, key))


@contextmanager
def spoilt(content: Any, path: tuple[Any, ...], value: Any) -> Iterator[None]:
    """Within the block the node at `path` is another, or gone."""
    for key in path[:-1]:
        content = content[key]
    before = content[path[-1]]
    order = dict(content) if isinstance(content, dict) else list(content)
    if value is GONE:
        del content[path[-1]]
    else:
        content[path[-1]] = (
            torch.full_like(before, float("nan"))
            if value is NAN
            else before[None]
            if value is RESHAPED
            else torch.zeros(before.shape, dtype=torch.bool)
            if value is SWITCHES
            else value
        )
    try:
        yield
    finally:
        if isinstance(content, dict):
            content.clear()
            content.update(order)
        else:
            content[:] = order


def cases(good: dict[str, Any], share: float) -> Iterator[tuple[tuple[Any, ...], Any]]:
    draw = random.Random(0)
    for path in list(nodes(good)):
        node: Any = good
        for key in path:
            node = node[key]
        floating = isinstance(node, Tensor) and node.is_floating_point()
        for value in (*VALUES, *(OF_TENSORS if floating else ())):
            if draw.random() < share:
                yield path, value


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("restoring") / "run"
    execute(compose([*TINY, "trainer.ema=0.9", "trainer.test=false"]), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def good(averaged: Path) -> dict[str, Any]:
    return torch.load(averaged / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def fresh(averaged: Path) -> Run:
    """The run that would go on from there."""
    settings = read([*TINY, "trainer.ema=0.9"])
    return prepare(settings, open_data(settings), averaged.parent / "new")


def line(content: Any, fresh: Run) -> str | None:
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


def test_good_checkpoint_is_good(good: dict[str, Any], fresh: Run) -> None:
    assert line(good, fresh) is None


@pytest.mark.parametrize("share", [0.05, pytest.param(1.0, marks=pytest.mark.slow)])
def test_every_node_that_is_wrong_is_named_in_one_line(share: float, good: dict[str, Any], fresh: Run) -> None:
    used = ("state_dict", "epoch", "global_step", "pytorch-lightning_version", "loops", "callbacks")
    used += ("optimizer_states", "lr_schedulers", "current_model_state", "averaging_state", checkpoint.KEY)
    assert set(used) == set(good)
    missed = []
    for path, value in cases(good, share):
        with spoilt(good, path, value):
            reason = line(good, fresh)
        if reason is None:
            missed.append((path, value))
        else:
            assert reason.startswith("ckpt=x ")
    assert line(good, fresh) is None
    assert not [case for case in missed if not harmless(*case)]


def harmless(path: tuple[Any, ...], value: Any) -> bool:
    """Whether a run goes on there as it would have, or another check comes later, or a number is another number."""
    names = [str(part) for part in path]
    own, last = names[:2], names[-1]
    switches = ("foreach", "fused", "amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")
    switches += ("is_last_batch", "_is_initial", "_get_lr_called_within_step")
    return (
        own == [checkpoint.KEY, "config"]  # what is missing has a default, and what is wrong is refused by the model
        or own == [checkpoint.KEY, "autoencoder"]  # compared with the run's
        or (own == [checkpoint.KEY, "scores"] and (value is GONE or value in (-3, {})))
        or (own == [checkpoint.KEY, "data"] and "mean" in names and value in (-3, [1]))
        or (own == [checkpoint.KEY, "data"] and last == "std" and value == [1])
        or (names[0] == "loops" and len(path) > 1 and path[1] != "fit_loop")  # no other loop is gone on with
        or (names[0] == "loops" and last.endswith(".state_dict") and value == {})  # as it was
        or (names[0] == "optimizer_states" and len(path) == 4 and value is GONE)  # a parameter without gradients
        or (value is None and (last in (*switches, "score") or "lr_lambdas" in names))
    )
