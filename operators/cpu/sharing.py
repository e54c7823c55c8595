"""Sharing the work of compiled code among threads.

Work for threads is a compiled function of one argument, the address of a table of 64-bit numbers: see `share`. It is
run by the threads that torch's own operators use, where torch uses GNU's OpenMP: those wait for work by turning in a
loop for a while, and threads beside them would find the processor taken.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from torch import Tensor

from operators.cpu.compilation import inner

HEAD = 4
"""Numbers that stand before a table's own: a counter, its address, the number of shares, the number of tasks."""


@intrinsic
def _count(_context: Any, address: Any) -> Any:
    """The number at an address, which is one more afterwards: no two threads get the same."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counter = builder.inttoptr(arguments[0], context.get_value_type(types.int64).as_pointer())
        return builder.atomic_rmw("add", counter, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(types.int64), code


@inner
def share(data: Any, length: int) -> Any:
    """Compiled code's view of its table, of `length` numbers after the head, and the tasks it is to do: low, high."""
    table = carray(data, (HEAD + length,), np.int64)
    number = _count(table[1])
    return table[HEAD:], table[3] * number // table[2], table[3] * (number + 1) // table[2]


def run(compiled: Any, tensors: Sequence[Tensor], numbers: Sequence[int], tasks: int, threads: int) -> None:
    """Call what `compile_share` has made in `threads` threads, which share `tasks` tasks.

    Its table holds every tensor's address and the numbers from its first to its last in memory, and then `numbers`.
    """
    table = np.array(
        [0, 0, threads, tasks, *(n for t in tensors for n in (t.data_ptr(), _span(t))), *numbers], np.int64
    )
    table[1] = table.ctypes.data
    team = _team()
    if threads == 1:
        compiled.ctypes(table.ctypes.data)
    elif team is not None:
        team(compiled.address, table.ctypes.data, threads, 0)
    else:
        with ThreadPoolExecutor(threads - 1) as pool:
            others = [pool.submit(compiled.ctypes, table.ctypes.data) for _ in range(threads - 1)]
            compiled.ctypes(table.ctypes.data)
            for other in others:
                other.result()


def _span(tensor: Tensor) -> int:
    if tensor.is_contiguous():
        return tensor.numel()
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@lru_cache
def _team() -> Any:
    """GNU OpenMP's `GOMP_parallel(function, data, threads, flags)`, if the process has it."""
    team = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if team is not None:
        team.argtypes, team.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return team


def _forget_team() -> None:
    global _team
    _team = lru_cache(lambda: None)


# A forked process has none of its parent's threads, and OpenMP would wait for them.
os.register_at_fork(after_in_child=_forget_team)
