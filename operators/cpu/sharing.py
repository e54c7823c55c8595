"""Sharing the work of compiled code among threads: those that torch's own operators use, where torch uses GNU's OpenMP.

They wait for work by turning in a loop for a while, and threads beside them would find the processor taken.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any


def run(compiled: Any, numbers: Any, threads: int) -> None:
    """Call what `operators.cpu.compilation.compile_entry` has made in `threads` threads, this one among them.

    Args:
        compiled: takes the address of a table, counts its calls there, and does another share of the work at each.
        numbers: the table, an array of 64-bit integers.
        threads: their number, which is that of the shares.
    """
    address = numbers.ctypes.data
    team = _team()
    if threads == 1:
        compiled.ctypes(address)
    elif team is not None:
        team(compiled.address, address, threads, 0)
    else:
        with ThreadPoolExecutor(threads - 1) as pool:
            others = [pool.submit(compiled.ctypes, address) for _ in range(threads - 1)]
            compiled.ctypes(address)
            for other in others:
                other.result()


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
