"""A run dies, or has something done to it, at a chosen moment, and goes on afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

import run
from tasks.config.composition import compose
from tasks.run import execute as execution
from tasks.run.execute import execute
from tests.tasks.run.faults import RUN, ended, forked

LAST = "checkpoints/last.ckpt"


class Do(Callback):
    """Calls `action` at the `count`-th `hook`."""

    def __init__(self, hook: str, count: int, action: Callable[..., object]) -> None:
        self._left, self._action = count, action
        setattr(self, hook, self._do)

    def _do(self, *arguments: Any, **_: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._action(*arguments)


def go_on(run_dir: Path) -> None:
    """Do what one does after an interruption: continue, or where nothing is saved start again."""
    last = run_dir / LAST
    execute(compose([*RUN, f"ckpt={last}"] if last.exists() else RUN), run_dir)


def step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def add_callbacks(*more: Callback) -> None:
    """Let `run.py` carry out its runs in this process with these callbacks too."""

    def with_more(*arguments: Any, callbacks: Sequence[Callback], **options: Any) -> dict[str, Any]:
        return execute(*arguments, callbacks=[*callbacks, *more], **options)

    execution.execute = with_more  # type: ignore[assignment]


def in_child(run_dir: Path, *callbacks: Callback, before: Callable[[], object] = lambda: None) -> int:
    """`python run.py` with callbacks, in a process of its own: exit status, or minus a signal."""

    def work() -> int:
        before()
        add_callbacks(*callbacks)
        return run.main([*RUN, f"hydra.run.dir={run_dir}"])

    log = run_dir.with_suffix(".log")
    status = ended(forked(work, log))
    assert "Traceback" not in log.read_text()
    return status
