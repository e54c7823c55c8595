"""Compilation by numba, which takes seconds, kept on disk where that can be written."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Timer
from types import FunctionType
from typing import Any

from llvmlite import binding, ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

PATIENCE = 1.0
"""Seconds of compilation after which a line says what is going on."""

_LASTING: list[Any] = []
"""Compiled code that other compiled code calls by its address; it must not be collected."""


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


def compile_entry(function: Callable[[Any], None], name: str) -> Any:
    """`function` of a table's address compiled for `operators.cpu.sharing.run`; kept under that name."""
    return _cached(function, types.void(types.voidptr), name)


def compile_function(function: Callable[..., None], numbers: int) -> int:
    """The address of `function` of so many 64-bit numbers, compiled for `call`."""
    made = _cached(function, types.void(*[types.int64] * numbers), f"{function.__module__}.{function.__qualname__}")
    _LASTING.append(made)
    address: int = made.address
    return address


def _cached(function: Callable[..., None], signature: Any, name: str) -> Any:
    named = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    named.__qualname__ = f"{name}.{_variant(function, signature)}"
    try:
        with _announced():
            return cfunc(signature, cache=True, error_model="numpy")(named)
    except RuntimeError as error:
        # Numba's "no locator available": neither the package's directory nor the user's cache can be written.
        if "cannot cache" not in str(error):
            raise
        return cfunc(signature, error_model="numpy")(named)


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
    """What tells a function's compiled forms apart: their types, what it closes over, the processor, all sources here.

    Numba keeps an index of them by the function's name. Of two processes that add to one at the same time, one may end
    up with the other's code; with a name for each form there is nothing to mistake. And it looks for changes in the
    file of the function alone.
    """
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    facts = [str(signature), *map(str, closed), binding.get_host_cpu_name(), str(binding.get_host_cpu_features())]
    return hashlib.sha256("\0".join([*facts, *_sources()]).encode()).hexdigest()[:16]


@lru_cache
def _sources() -> tuple[str, ...]:
    return tuple(path.read_text() for path in sorted(Path(__file__).parent.rglob("*.py")))


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
        target, packed = arguments
        given = cgutils.unpack_tuple(builder, packed)
        kind = ir.FunctionType(ir.VoidType(), [number.type for number in given])
        builder.call(builder.inttoptr(target, kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(numbers))), code


@inner
def array(address: int, size: int, dtype: Any) -> Any:
    """The array of `size` numbers at an address."""
    return carray(_pointer(address), (size,), dtype)
