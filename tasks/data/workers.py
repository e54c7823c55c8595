"""Processes that load data: whether the machine can carry them, how batches leave them, and what is said when one ends.

PyTorch lets a worker hand its batch over in a thread that nobody hears: a batch that cannot be shared is lost, and the
main process waits for it forever. So a batch is shared where errors are reported, see `Parcel`.
"""

from __future__ import annotations

import os
import pickle
import re
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from operators.errors import InputError
from operators.runtime.torch_private import take_workers
from tasks.data.decode import EXHAUSTED
from tasks.system.failure import WorkerError

AHEAD = 2
"""Batches that PyTorch lets each worker prepare."""
SHARED = Path("/dev/shm")

_FILES_OF_A_WORKER, _FILES_OF_A_LOADER = 6, 12
"""Open files in the main process, batches on their way included."""
_PAGE = 4096
_LOCKS_OF_A_WORKER, _LOCKS_OF_A_LOADER = 3, 9
_ENDED = re.compile(r"DataLoader worker \(pid\(?s?\)? ?(?P<pids>[\d, ]+)\) (?P<how>[^.\n]*)")
_NEED_LESS = "fewer data.num_workers or a smaller data.batch_size need less"
_SHARING = re.compile("shared memory|shm|unable to (write|open|resize|mmap)|No space left|Too many open")
_HINTS = {
    "Killed": f"as a machine does that runs out of memory: {_NEED_LESS}",
    "Bus error": f"shared memory is full: {_NEED_LESS}",
}


class Parcel:
    """A batch that a worker has already moved to shared memory; whoever unpickles it gets the batch.

    Raises:
        OSError: there are too few open files or too little shared memory.
        RuntimeError: likewise, as PyTorch says it.
    """

    def __init__(self, batch: dict[str, Any]) -> None:
        small = {name: value if name == "image" else _plain(value) for name, value in batch.items()}
        self._content = bytes(ForkingPickler.dumps(small))

    def __reduce__(self) -> Any:
        return pickle.loads, (self._content,)


def _plain(value: Any) -> Any:
    """A tensor as an array, which is copied: a shared tensor keeps a file open as long as it lives."""
    return value.numpy() if isinstance(value, torch.Tensor) else value


def send(batch: Any) -> Any:
    """What a loader's `collate_fn` makes of a batch, a dict: a `Parcel` in a worker, else the batch."""
    return batch if torch.utils.data.get_worker_info() is None else Parcel(batch)


def receive(batch: Any) -> Any:
    """The batch as it was before `send`; of a worker's, only "image" lies in shared memory."""
    if not isinstance(batch, dict):
        return batch
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in batch.items()}


def check(workers: int, loaders: int, batch: int, batches: int) -> None:
    """Refuse workers that this machine cannot carry, before any of them starts.

    Args:
        workers: of a loader.
        loaders: that will live at once.
        batch: bytes of a batch's images.
        batches: of an epoch.

    Raises:
        InputError: too few open files are allowed, or too little shared memory is free.
    """
    if workers == 0:
        return
    advice = "take fewer data.num_workers (0 needs none)"
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = loaders * (_FILES_OF_A_LOADER + _FILES_OF_A_WORKER * workers)
    taken = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    if limit != resource.RLIM_INFINITY and taken + needed > limit:
        raise InputError(
            f"data.num_workers={workers} opens up to {needed} files besides the {taken} that are open, and {limit} are "
            f"allowed: raise the limit (ulimit -n {2 * (taken + needed)}) or {advice}"
        )
    if not SHARED.is_dir():
        return
    locks = loaders * (_LOCKS_OF_A_LOADER + _LOCKS_OF_A_WORKER * workers) * _PAGE
    held = min(AHEAD * workers, batches) + 1
    state = os.statvfs(SHARED)
    free = state.f_bavail * state.f_frsize
    if held * batch + locks > free:
        raise InputError(
            f"data.num_workers={workers} keeps up to {held} batches of {batch / 2**20:.3g} MiB in shared memory, and "
            f"{SHARED} has {free / 2**20:.3g} MiB free: enlarge it (docker run --shm-size=…), {advice}, or a smaller "
            "data.batch_size"
        )


@contextmanager
def explained(checkpoint: Path | None) -> Iterator[None]:
    """Say in one line that data workers cannot start, share their batches or go on.

    Args:
        checkpoint: to continue from, where there is such a file.

    Raises:
        WorkerError: see its message.
    """
    try:
        yield
    except WorkerError:
        raise
    except (OSError, RuntimeError, ImportError, MemoryError, EOFError) as error:
        line = _line(error)
        if line is None:
            raise
        raise WorkerError(line + _continue(checkpoint)) from error


@contextmanager
def watched(checkpoint: Path | None, number: int) -> Iterator[None]:
    """Start `number` workers within; from then on, one that is killed raises `WorkerError` in the main thread.

    PyTorch's handler, which starting them puts in place, raises a `RuntimeError` there. Only the first death is told,
    until others are started: what follows would only disturb the end of the run. Code that catches whatever it meets
    may swallow it; the loader then finds its workers gone, and `explained` says of what they died.
    """
    if number and threading.current_thread() is threading.main_thread():
        _watch(checkpoint)
        yield
        _watch(checkpoint)
    else:
        yield


def _watch(checkpoint: Path | None) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    if isinstance(handler, _Handler):
        handler.checkpoint = checkpoint
        handler.silent, handler.told = False, None
    elif callable(handler):
        signal.signal(signal.SIGCHLD, _Handler(handler, checkpoint))


class _Handler:
    def __init__(self, inner: Any, checkpoint: Path | None) -> None:
        self._inner, self.checkpoint, self.silent = inner, checkpoint, False
        self.told: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._inner(number, frame)
        except RuntimeError as error:
            if self.silent:
                return
            self.silent, self.told = True, _line(error) or str(error)
            raise WorkerError(self.told + _continue(self.checkpoint)) from error


def _line(error: BaseException) -> str | None:
    """What happened to the workers, or None where `error` is not about them."""
    if isinstance(error.__cause__, WorkerError):
        return str(error.__cause__).partition("; continue")[0]
    text = str(error).strip()
    ended = _ENDED.search(text)
    if ended is not None:
        handler = signal.getsignal(signal.SIGCHLD)
        if isinstance(handler, _Handler) and handler.told is not None:
            return handler.told
        how = ended["how"].strip()
        hint = next(
            (hint for name, hint in _HINTS.items() if name in how), "see what it has written above, if anything"
        )
        return f"data worker {ended['pids']} {how}: {hint}"
    if text.startswith("Caught") and "in DataLoader worker process" in text:
        reason = text.splitlines()[-1]
        if isinstance(error, RuntimeError) and not _SHARING.search(reason):
            return None
        return f"a data worker cannot go on ({reason}); data.num_workers=0 needs none"
    if text.startswith("Too many open files") or "ancdata" in text:
        return "the open files that are allowed (ulimit -n) do not suffice for data workers: raise the limit"
    if isinstance(error, OSError) and error.errno in EXHAUSTED and error.filename is not None:
        return f"{os.fsdecode(error.filename)} cannot be read: {error.strerror}"
    if isinstance(error, OSError | EOFError):
        # of this process, which itself reads no data where workers do
        return f"data workers cannot be started or reached: {error}; data.num_workers=0 needs none"
    return None


def _continue(checkpoint: Path | None) -> str:
    return f"; continue with ckpt={checkpoint}" if checkpoint is not None and checkpoint.is_file() else ""


def end(loader: torch.utils.data.DataLoader[Any]) -> None:
    """Kill the workers of a loader that has failed: PyTorch would wait for them, one after the other."""
    handler = signal.getsignal(signal.SIGCHLD)
    if isinstance(handler, _Handler):
        handler.silent = True
    for worker in take_workers(loader):
        worker.kill()
