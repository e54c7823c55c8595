"""Compilation by numba, which takes seconds, kept on disk where that can be written; and sharing work among threads.

Work for threads is a compiled function of one argument, the address of a table of 64-bit numbers: see `share`. It is
run by the threads that torch's own operators use, where torch uses GNU's OpenMP: those wait for work by turning in a
loop for a while, and threads beside them would find the processor taken.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Timer
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

PATIENCE = 1.0
"""Seconds of compilation after which a line says what is going on."""

HEAD = 4
"""Numbers that stand before a table's own: a counter, its address, the number of shares, the number of tasks."""

_FUNCTIONS: list[Any] = []
"""What is called by its address, and has to last."""


def inner(function: Callable[..., Any] | None = None, *, fastmath: Collection[str] = (), once: bool = False) -> Any:
    """Decorates a function that compiled code alone calls; without what Python needs, which takes long to compile.

    Called from Python it crashes the process.

    Args:
        function: what is decorated.
        fastmath: liberties of LLVM's with floating point.
        once: it has one caller, and is compiled as a part of that.
    """
    options: dict[str, Any] = {"inline": "always"} if once else {"fastmath": set(fastmath)}
    made = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)
    return made if function is None else made(function)


def compile_cached(function: Callable[..., None], signature: Any) -> Callable[..., None]:
    """`function` compiled for numba's `signature`; it runs without the interpreter's lock."""
    return _cached(njit, function, signature, nogil=True, error_model="numpy")


def compile_share(function: Callable[[Any], None]) -> Any:
    """`function` of a table's address compiled for `run`."""
    return _cached(cfunc, function, types.void(types.voidptr), error_model="numpy")


def compile_function(function: Callable[..., None], numbers: int) -> int:
    """The address of `function` of so many 64-bit numbers, compiled for `call`."""
    made = _cached(cfunc, function, types.void(*[types.int64] * numbers), error_model="numpy")
    _FUNCTIONS.append(made)
    address: int = made.address
    return address


def _cached(compiler: Any, function: Callable[..., None], signature: Any, **options: Any) -> Any:
    named = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    named.__qualname__ = f"{function.__qualname__}.{_variant(function, signature)}"
    try:
        with _announced():
            return compiler(signature, cache=True, **options)(named)
    except RuntimeError as error:
        # Numba's "no locator available": neither the package's directory nor the user's cache can be written.
        if "cannot cache" not in str(error):
            raise
        return compiler(signature, **options)(named)


@contextmanager
def _announced() -> Iterator[None]:
    """Say on standard error, once for each process, that code is being compiled, where that takes more than a second.

    What is read from the cache takes some milliseconds, and nothing is said.
    """
    timer = Timer(PATIENCE, _announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@lru_cache
def _announce() -> None:
    sys.stderr.write("compiling kernels for this processor: some ten seconds, kept on disk if possible\n")


def _variant(function: Callable[..., None], signature: Any) -> str:
    """What tells a function's compiled forms apart: their types, what it closes over, the processor, helpers' sources.

    Numba keeps an index of them by the function's name. Of two processes that add to one at the same time, one may end
    up with the other's code; with a name for each form there is nothing to mistake. And it looks for changes in the
    file of the function alone.
    """
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    facts = [str(signature), *map(str, closed), binding.get_host_cpu_name(), str(binding.get_host_cpu_features())]
    sources = [(Path(__file__).parent / name).read_text() for name in ("jit.py", "vectors.py", "exponential.py")]
    return hashlib.sha256("\0".join([*facts, *sources]).encode()).hexdigest()[:16]


def named(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A name of its own for a function that is defined again and again, to stand below `inner`.

    Compiled code that comes from several processes' caches is linked by names, and the first of a name serves all.
    """

    def rename(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ = f"{function.__qualname__}.{name}"
        return function

    return rename


@intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@intrinsic
def call(_context: Any, address: Any, numbers: Any) -> Any:
    """Call what `compile_function` has made, in compiled code, with a tuple of numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = cgutils.unpack_tuple(builder, arguments[1])
        kind = ir.FunctionType(ir.VoidType(), [number.type for number in given])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(numbers))), code


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


@inner
def array(address: int, size: int, dtype: Any) -> Any:
    """The array of `size` numbers at an address."""
    return carray(_pointer(address), (size,), dtype)


class Vectors:
    """Vectors of 16 numbers in the flat arrays that are arguments of an intrinsic, all of the first one's type."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder, self.signature, self.arguments = context, builder, signature, arguments
        number = context.get_value_type(signature.args[0].dtype)
        self.align = context.get_abi_sizeof(number)
        self.type = ir.VectorType(number, 16)

    def place(self, argument: int, *offsets: Any) -> Any:
        """A pointer to the number behind all `offsets` in an array."""
        array = self.context.make_array(self.signature.args[argument])
        return self.move(array(self.context, self.builder, self.arguments[argument]).data, *offsets)

    def move(self, place: Any, *offsets: Any) -> Any:
        for offset in offsets:
            place = self.builder.gep(place, [offset])
        return place

    def load(self, place: Any) -> Any:
        return self.builder.load(self.builder.bitcast(place, self.type.as_pointer()), align=self.align)

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.builder.bitcast(place, self.type.as_pointer()), align=self.align)

    def add_product(self, total: Any, one: Any, other: Any) -> None:
        """To a variable."""
        product = self.builder.fmul(one, other, flags=("contract",))
        self.builder.store(self.builder.fadd(self.builder.load(total), product, flags=("contract",)), total)


@intrinsic
def copy16(_context: Any, target: Any, to: Any, source: Any, of: Any) -> Any:
    """target[to : to + 16] = source[of : of + 16], as one vector; arrays are contiguous and of one type.

    Loops of that length LLVM compiles for any length, with a test whether the arrays overlap.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = Vectors(context, builder, signature, arguments)
        vectors.store(vectors.load(vectors.place(2, arguments[3])), vectors.place(0, arguments[1]))
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), code


@intrinsic
def add_products16(
    _context: Any, total: Any, to: Any, one: Any, i: Any, i_step: Any, other: Any, j: Any, j_step: Any, count: Any
) -> Any:
    """Add to total[to : to + 16] `count` products one[i : i + 16] · other[j : j + 16], i and j moving on by a step."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = Vectors(context, builder, signature, arguments)
        target = vectors.place(0, arguments[1])
        products = cgutils.alloca_once_value(builder, vectors.load(target))
        with cgutils.for_range(builder, arguments[8]) as loop:
            steps = [builder.mul(loop.index, arguments[step]) for step in (4, 7)]
            first = vectors.load(vectors.place(2, arguments[3], steps[0]))
            vectors.add_product(products, first, vectors.load(vectors.place(5, arguments[6], steps[1])))
        vectors.store(builder.load(products), target)
        return context.get_dummy_value()

    number = types.int64
    return types.void(total, number, one, number, number, other, number, number, number), code


@intrinsic
def prefetch(_context: Any, source: Any, of: Any) -> Any:
    """Have the processor fetch what memory holds around source[of], which need not exist, while it goes on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = Vectors(context, builder, signature, arguments).place(0, arguments[1])
        number = ir.IntType(32)
        # For reading; into the second-level cache; data, not code.
        how = [number(0), number(2), number(1)]
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [builder.bitcast(place, cgutils.voidptr_t), *how])
        return context.get_dummy_value()

    return types.void(source, types.int64), code


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
