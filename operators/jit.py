"""Compilation by numba, which takes seconds, kept on disk where that can be written; and sharing work among threads.

Work for threads is a compiled function of one argument, the address of a table of 64-bit numbers: see `share`. It is
run by the threads that torch's own operators use, where torch uses GNU's OpenMP: those wait for work by turning in a
loop for a while, and threads beside them would find the processor taken.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

HEAD = 4
"""Numbers that stand before a table's own: a counter, its address, the number of shares, the number of tasks."""


def compile_cached(function: Callable[..., None], signature: Any) -> Callable[..., None]:
    """`function` compiled for numba's `signature`; it runs without the interpreter's lock."""
    return _cached(lambda **options: njit(signature, nogil=True, error_model="numpy", **options)(function))


def compile_share(function: Callable[[Any], None]) -> Any:
    """`function` of a table's address compiled for `run`."""
    return _cached(lambda **options: cfunc(types.void(types.voidptr), error_model="numpy", **options)(function))


def _cached(compiled: Callable[..., Any]) -> Any:
    try:
        return compiled(cache=True)
    except RuntimeError as error:
        # Numba's "no locator available": neither the package's directory nor the user's cache can be written.
        if "cannot cache" not in str(error):
            raise
        return compiled()


@intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@intrinsic
def _count(_context: Any, address: Any) -> Any:
    """The number at an address, which is one more afterwards: no two threads get the same."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counter = builder.inttoptr(arguments[0], context.get_value_type(types.int64).as_pointer())
        return builder.atomic_rmw("add", counter, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(types.int64), code


@njit
def share(data: Any, length: int) -> Any:
    """Compiled code's view of its table, of `length` numbers after the head, and the tasks it is to do: low, high."""
    table = carray(data, (HEAD + length,), np.int64)
    number = _count(table[1])
    return table[HEAD:], table[3] * number // table[2], table[3] * (number + 1) // table[2]


@njit
def array(address: int, size: int, dtype: Any) -> Any:
    """The array of `size` numbers at an address."""
    return carray(_pointer(address), (size,), dtype)


def vectors(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[list[Any], int]:
    """Pointers to vectors of 16 numbers at each (array, index) among the arguments, and what they are aligned to."""
    number = context.get_value_type(signature.args[0].dtype)
    vector = ir.VectorType(number, 16).as_pointer()
    pointers = []
    for place in range(0, len(arguments), 2):
        data = context.make_array(signature.args[place])(context, builder, arguments[place]).data
        pointers.append(builder.bitcast(builder.gep(data, [arguments[place + 1]]), vector))
    return pointers, context.get_abi_sizeof(number)


@intrinsic
def copy16(_context: Any, target: Any, to: Any, source: Any, of: Any) -> Any:
    """target[to : to + 16] = source[of : of + 16], as one vector; arrays are contiguous and of one type.

    Loops of that length LLVM compiles for any length, with a test whether the arrays overlap.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (there, here), width = vectors(context, builder, signature, arguments)
        builder.store(builder.load(here, align=width), there, align=width)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), code


@intrinsic
def multiply16(_context: Any, target: Any, to: Any, one: Any, i: Any, other: Any, j: Any) -> Any:
    """target[to : to + 16] = one[i : i + 16] · other[j : j + 16], like `copy16`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (there, *factors), width = vectors(context, builder, signature, arguments)
        builder.store(builder.fmul(*(builder.load(one, align=width) for one in factors)), there, align=width)
        return context.get_dummy_value()

    return types.void(target, types.int64, one, types.int64, other, types.int64), code


@intrinsic
def add_product16(_context: Any, target: Any, to: Any, one: Any, i: Any, other: Any, j: Any) -> Any:
    """target[to : to + 16] += one[i : i + 16] · other[j : j + 16], like `copy16`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (there, *factors), width = vectors(context, builder, signature, arguments)
        product = builder.fmul(*(builder.load(one, align=width) for one in factors), flags=("contract",))
        total = builder.fadd(builder.load(there, align=width), product, flags=("contract",))
        builder.store(total, there, align=width)
        return context.get_dummy_value()

    return types.void(target, types.int64, one, types.int64, other, types.int64), code


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
