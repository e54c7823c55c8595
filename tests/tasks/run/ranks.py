"""The processes of a distributed run, forked from the test: nothing is imported anew."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

import run
from tasks.config.composition import compose
from tasks.run.execute import execute

WORLD = 2
DDP = (f"trainer.devices={WORLD}", "trainer.strategy=ddp")


class Seen(Callback):
    """Writes (epoch, step, index …) of every training batch to a file for each rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Any, module: Any, batch: dict[str, torch.Tensor], number: int) -> None:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{trainer.global_rank}.txt").open("a") as file:
            print(trainer.current_epoch, trainer.global_step, *batch["index"].tolist(), file=file)

    def read(self) -> dict[int, list[list[int]]]:
        """By step, the indices of each rank; a step taken again counts as the last time."""
        steps: dict[int, dict[int, list[int]]] = {}
        for path in sorted(self.folder.iterdir()):
            for line in path.read_text().splitlines():
                _, step, *index = map(int, line.split())
                steps.setdefault(step, {})[int(path.stem)] = index
        return {step: [ranks[rank] for rank in sorted(ranks)] for step, ranks in sorted(steps.items())}


def launch(function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[int | None]:
    """Exit statuses of `function(*arguments)` in `WORLD` processes that find each other; None: it hung."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=_rank, args=(rank, port, function, *arguments)) for rank in range(WORLD)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            return [None]
    return [process.exitcode for process in ranks]


def _rank(rank: int, port: int, function: Callable[..., Any], *arguments: Any) -> None:
    os.environ |= {"LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{WORLD}", "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    function(*arguments)


def execute_all(runs: Sequence[tuple[Path, Sequence[str], Sequence[Callback]]]) -> None:
    """Runs one after another, distributed."""
    for run_dir, overrides, callbacks in runs:
        execute(compose([*overrides, *DDP]), run_dir, callbacks=callbacks)


def command(errors: Path, *overrides: str) -> None:
    """`run.py`, with what it and whatever it started write to standard error in a file."""
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
        import sys

        sys.stderr = file
        sys.exit(run.main([*overrides, *DDP]))
