"""Processes that load data: what they keep open, and how it ends when they cannot work."""

from __future__ import annotations

import ctypes
import errno
import json
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from torch.utils.data import DataLoader

from operators.errors import InputError
from tasks import data
from tasks.config import bounds
from tasks.config.composition import compose
from tasks.data import workers
from tasks.data.sampler import Loader
from tasks.run.execute import execute
from tasks.system.failure import FAILED, WorkerError, explain
from tests.processes import CLEAN
from tests.tasks.conftest import TINY
from tests.tasks.data.photographs import refusal
from tests.tasks.run.faults import ended, forked

FOLDER = ("data=image_folder", "data.resolution=16", "data.batch_size=2", "data.num_workers=2", "model.patch=8")
SHORT = (*(o for o in TINY if o not in ("trainer=smoke", "data.batch_size=32")), *FOLDER, "trainer.max_epochs=1")


def apart(work: Callable[..., object], *given: object) -> object:
    """What `work` returns in a process where no other test has loaded anything, or killed who did."""
    with ProcessPoolExecutor(1, CLEAN, fork_workers) as pool:
        return pool.submit(work, *given).result()


def fork_workers():
    multiprocessing.set_start_method("fork", force=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    for split, count in (("train", 4), ("val", 2), ("test", 120)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (9, 8), (2 * i, len(split), len(name))).save(folder / f"{split}{i}.png")
    return root


def limited(files):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # which cannot be raised again
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def test_a_long_test_set_keeps_no_files_open(tree, tmp_path):
    """120 batches of the test split, and 128 open files are allowed."""
    assert apart(status_with_few_files, tree, tmp_path / "run") == "ok"


def status_with_few_files(root, run_dir):
    limited(128)
    return execute(compose([*SHORT, f"data.root={root}"]), run_dir)["status"]


@pytest.mark.parametrize("number", [0, 2])
def test_what_is_kept_of_a_batch_holds_no_file(tree, number):
    """Every column but the images lies in memory of its own, whatever happens to it later."""
    module = data.create("image_folder", root=str(tree), batch_size=2, resolution=8, num_workers=number)
    module.augment = data.Augment.parse({"mixup": 0.5})
    for loader in (module.train_dataloader(), module.test_dataloader()):
        for batch in loader:
            shared = {name for name, value in batch.items() if value.is_shared()}
            assert shared == ({"image"} if number else set())


class Broken(torch.utils.data.Dataset):
    """Images that a worker cannot deliver."""

    def __init__(self, problem):
        self.problem = problem

    def __getitems__(self, pairs):
        if self.problem == "files":
            lowest = os.open(os.devnull, os.O_RDONLY)
            os.close(lowest)
            limited(lowest)
        if self.problem == "import":
            import no_such_package  # noqa: F401
        if self.problem == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.problem == "memory":
            raise MemoryError("not enough")
        if self.problem == "bug":
            raise RuntimeError("this is a bug")
        return {"image": torch.zeros(2, 3, 64, 64), "label": torch.zeros(2)}


def broken(problem):
    return Loader(
        Broken(problem),
        batch_sampler=[[(0, i)] for i in range(8)],
        num_workers=2,
        collate_fn=workers.send,
        persistent_workers=True,
    )


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("files", "Too many open files"),
        ("import", "no_such_package"),
        ("memory", "MemoryError: "),
        ("killed", "killed by signal: Killed: as a machine does that runs out of memory"),
    ],
)
def test_workers_that_cannot_deliver_end_in_one_line(problem, line):
    status, text, seconds, left = apart(failure, problem)
    assert (status, "\n" in text) == (FAILED, False)
    assert line in text
    assert seconds < 20
    assert not left


def failure(problem):
    """How a loader with this problem ends, in how many seconds, and how many of its workers outlive it."""
    start = time.monotonic()
    try:
        list(broken(problem))
    except WorkerError as error:
        told = explain(error)
    seconds = time.monotonic() - start
    children = multiprocessing.active_children()
    for child in children:
        child.join(timeout=10)
    return *told, seconds, sum(child.is_alive() for child in children)


def test_what_killed_a_worker_is_said_though_code_that_catches_all_was_told_first():
    assert apart(swallowed) == (FAILED, "data worker killed by signal: Killed")


def swallowed():
    """How a loader ends whose first error was caught by whoever ran when it came, without the worker's number."""
    loader = broken("killed")
    with workers.watched(None, 2):
        batches = DataLoader.__iter__(loader)
    with suppress(WorkerError):
        time.sleep(20)
    try:
        with workers.explained(None):
            raise RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly")
    except WorkerError as error:
        status, text = explain(error)
    del batches
    return status, re.sub(r"(data worker )\d+ is |: as a machine.*", r"\1", text)


def test_a_bug_in_a_worker_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"in __getitems__[\s\S]*this is a bug") as caught:
        apart(list, broken("bug"))
    assert not isinstance(caught.value, WorkerError)


def test_workers_that_cannot_start_end_in_one_line():
    status, text, *_ = apart(failure_without_processes)
    assert (status, "\n" in text) == (FAILED, False)
    assert re.search("cannot be started or reached: .*Resource temporarily unavailable", text)


def failure_without_processes():
    def fork():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    os.fork = fork
    return failure("none")


def test_too_many_workers_are_refused(tree):
    line = refusal(lambda: data.create("image_folder", root=str(tree), num_workers=100_000))
    assert line == f"data.num_workers=100000 must be an integer >= 0 and <= {bounds.MOST_WORKERS}"
    described = data.describe("image_folder", root=str(tree), num_workers=bounds.MOST_WORKERS + 1)
    assert described.num_classes == 2, "a plan may be for another machine"


def test_too_few_files_or_too_little_memory_is_told_before_training(tree):
    assert "open, and 32 are allowed: raise the limit (ulimit -n" in apart(refused_with_few_files, tree)
    line = refusal(lambda: workers.check(2, 3, 2**50, 100))
    assert "keeps up to 5 batches of 1.07e+09 MiB in shared memory, and /dev/shm has" in line
    workers.check(0, 3, 2**50, 100)


def refused_with_few_files(root):
    module = data.create("image_folder", root=str(root), batch_size=2, resolution=16, num_workers=2)
    limited(32)
    return refusal(module.train_dataloader)


def small_shared_memory():
    """Give this process a /dev/shm of 64 KiB of its own; whether it could."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) != 0 or libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) != 0:
        return False
    return libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=64k") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes a privileged process")
@pytest.mark.parametrize(
    ("looked_at", "kind", "line"),
    [
        ("/dev/shm", InputError, "MiB in shared memory, and /dev/shm has 0.0625 MiB free"),
        ("/nowhere", WorkerError, "data.num_workers"),  # as where something else has filled it since
    ],
)
def test_full_shared_memory_ends_in_one_line(tree, looked_at, kind, line):
    error = apart(error_with_small_shared_memory, tree, looked_at)
    if error is PermissionError:
        pytest.skip("this system lets nobody mount")
    raised, text = error
    assert raised is kind
    assert line in text
    assert "\n" not in text


def error_with_small_shared_memory(root, looked_at):
    if not small_shared_memory():
        return PermissionError
    workers.SHARED = Path(looked_at)
    module = data.create("image_folder", root=str(root), batch_size=2, resolution=128, num_workers=1)
    try:
        list(module.test_dataloader())
    except (InputError, WorkerError) as error:
        return type(error), explain(error)[1]


class Killer(Callback):
    """Kills a data worker in the middle of training, as the system does where memory is short."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            multiprocessing.active_children()[0].kill()
            end = time.monotonic() + 20
            while time.monotonic() < end:
                time.sleep(0.01)


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_failed_and_continues(tree, tmp_path):
    more = [f"data.root={tree}", "data.batch_size=1", "trainer.save_every=1", "+trainer.limit_test_batches=1"]
    config = compose([*(o for o in SHORT if "batch_size" not in o), *more])

    def work():
        try:
            execute(config, tmp_path / "run", callbacks=[Killer()])
        except WorkerError as error:
            print(explain(error)[1])  # noqa: T201 - into the log
            return 5
        return 0

    assert ended(forked(work, tmp_path / "log")) == 5, (tmp_path / "log").read_text()
    last = tmp_path / "run/checkpoints/last.ckpt"
    line = (tmp_path / "log").read_text().splitlines()[-1]
    assert line.startswith("data worker ")
    assert line.endswith(f"continue with ckpt={last}")
    assert json.loads((tmp_path / "run/metrics.json").read_text())["status"] == "failed"
    again = execute({**config, "ckpt": str(last)}, tmp_path / "run")
    assert again["status"] == "ok"
