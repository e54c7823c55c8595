"""Every value of a composed configuration against hostile ones: taken, or refused in one line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from lightning.pytorch import Trainer

from operators import InputError
from tasks.config import bounds
from tasks.config.composition import compose
from tasks.config.schema import parse

TASKS = {
    "classification": ["trainer=smoke"],
    "generation": ["task=generation", "trainer=smoke", "mixer=hybrid", "model.depth=3"],
    "plan": ["mode=plan", "mixer=attention"],
}
HOSTILE: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1e300, 10**30, math.nan, math.inf, -math.inf),
    *("", "x", "x" * 10_000, "a\0b", "\ud800", b"x", object()),
    *([], [[]], ["a"], [math.nan], {}, {"a": 1}, {1: 2}, {"a": {"b": math.inf}}),
)


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(inner, (*path, key))


def refusal(config: dict[str, Any]) -> str | None:
    try:
        parse(config)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("task", TASKS)
def test_every_value_is_taken_or_refused_in_one_line(task: str) -> None:
    good = compose(TASKS[task])
    parse(good)
    refused = 0
    for path in leaves(good):
        for value in HOSTILE:
            config = deepcopy(good)
            node: Any = config
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            line = refusal(config)
            refused += line is not None
            assert line is None or ("\n" not in line and len(line) > 10), (path, value)
    assert refused > 500


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 10**30, "a\0b", b"x", {1: 2}], ids=repr)
def test_what_nothing_can_be_is_refused_everywhere(task: str, value: Any) -> None:
    good = compose(TASKS[task])
    for path in leaves(good):
        config = deepcopy(good)
        node: Any = config
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        with pytest.raises(InputError):
            parse(config)


def test_levels_without_end_are_refused() -> None:
    node: Any = []
    for _ in range(5000):
        node = [node]
    config = compose([])
    config["data"]["root"] = node
    with pytest.raises(InputError, match="more than 50 levels"):
        parse(config)


def test_every_argument_of_lightning_has_its_check_or_is_not_the_users() -> None:
    own = {"accelerator", "devices", "num_nodes", "strategy", "precision", "max_epochs", "max_steps"}
    ours = {"callbacks", "logger", "plugins", "default_root_dir", "gradient_clip_val", "accumulate_grad_batches"}
    ours |= {"use_distributed_sampler", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"}
    ours |= {"num_sanity_val_steps", "log_every_n_steps", "fast_dev_run", "barebones", "model_registry"}
    assert set(inspect.signature(Trainer).parameters) == bounds.LIGHTNING | own | ours


@pytest.mark.parametrize(
    ("option", "bad", "good"),
    [
        ("benchmark", [0, "abc", [1], 0.5], [True, False, None]),
        ("check_val_every_n_epoch", [0, -1, 0.5, True, "a"], [1, 3, None]),
        ("detect_anomaly", [None, 1, "x"], [True, False]),
        ("deterministic", [1, "wran", 0.5], [True, "warn", None]),
        ("enable_autolog_hparams", [1, None], [False]),
        ("gradient_clip_algorithm", [0, -1, [1], "nrom"], ["norm", "value", None]),
        ("inference_mode", [0, None], [False]),
        ("limit_test_batches", [0, 0.0, -1, 1.5, "a", True, [1]], [1, 0.5, 1.0, None]),
        ("limit_val_batches", [0, 0.0, -1, 1.5, "a", True], [1, 0.5, 1.0, None]),
        ("limit_train_batches", [0, 0.0, -1, 1.5, "a", True], [1, 0.5, 1.0, None]),
        ("limit_predict_batches", [0, -1, "a"], [1, 0.5]),
        ("max_time", ["1", 5, "00:00:00:00", {"days": "a"}, {"weeks": 1}, {}], ["00:00:05:00", {"minutes": 1}, None]),
        ("min_epochs", [0, -1, "a", 1.5], [1, None]),
        ("min_steps", [0, -1, "a", 1.5], [1, None]),
        ("overfit_batches", [-1, 1.5, "a", True], [0, 0.0, 2, 0.5]),
        ("profiler", ["simpel", 1, "xla", [1]], ["simple", "advanced", "pytorch", None]),
        ("reload_dataloaders_every_n_epochs", [-1, 0.5, None, "a"], [0, 1]),
        ("sync_batchnorm", [1, None], [True]),
        ("val_check_interval", [0, 0.0, -1, 1.5, "1", {"days": 0}], [1, 0.5, 1.0, "00:00:05:00", None]),
    ],
)
def test_arguments_of_lightning(option: str, bad: list[Any], good: list[Any]) -> None:
    for value in good:
        bounds.check_lightning(option, value)
    for value in bad:
        with pytest.raises(InputError, match=f"trainer.{option}"):
            bounds.check_lightning(option, value)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 5, 1.5, True, "", "a\0b"])
@pytest.mark.parametrize("key", ["ckpt", "init"])
def test_path_is_a_text(key: str, value: Any) -> None:
    config = compose([])
    config[key] = value
    with pytest.raises(InputError, match=key):
        parse(config)
