"""Kernels: compiled code that reads a named record and does a share of its tasks.

A kernel's record is a named tuple whose annotations are `Flat`, `Integers`, `Axes2` to `Axes5` (tensors), `int` and
`float`. Python fills it with tensors and numbers; compiled code gets one whose fields are arrays and numbers. Between
them lies a table of 64-bit numbers, which this file alone knows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import Annotated, Any, TypeAlias, get_type_hints

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from torch import Tensor

from operators.cpu.compilation import compile_entry, inner
from operators.cpu.sharing import run
from operators.runtime.once import once

Flat: TypeAlias = Annotated[Any, "flat", 1]
"""All numbers of a tensor from its first to its last in memory, as an array of one axis."""
Integers: TypeAlias = Annotated[Any, "integers", 1]
"""As `Flat`, of 64-bit integers."""
Axes2: TypeAlias = Annotated[Any, "strided", 2]
"""A tensor of two axes with the strides that it has; and so on."""
Axes3: TypeAlias = Annotated[Any, "strided", 3]
Axes4: TypeAlias = Annotated[Any, "strided", 4]
Axes5: TypeAlias = Annotated[Any, "strided", 5]

HEAD = 3
"""Numbers of a table that stand before its record: the next share, the number of shares, the number of tasks."""


class Kernel:
    """Compiled code that does the tasks `low` to `high` - 1 of a record: see `kernel`."""

    def __init__(self, body: Callable[[Any, int, int], None]) -> None:
        self.py_func = body
        self.record: Any = get_type_hints(body)["k"]
        self._made: dict[str, Any] = {}

    def __call__(self, dtype: str, tasks: int, threads: int, **fields: Any) -> None:
        """Do all tasks in so many threads; `fields` are those of the record, whose numbers are of type `dtype`."""
        made = self._made.get(dtype) or self._made.setdefault(dtype, self.compiled(dtype))
        run(made, table(self.record(**fields), threads, tasks), threads)

    @once
    def compiled(self, dtype: str) -> Any:
        """The code for `float32` or `float64`, kept on disk if possible."""
        number = {"float32": types.float32, "float64": types.float64}[dtype]
        names = {"read": reader(self.record, number), "body": inner(self.py_func, once=True)}
        entry = FunctionType(_entry.__code__, {**globals(), **names}, self.py_func.__name__)
        return compile_entry(entry, f"{self.py_func.__module__}.{self.py_func.__name__}.{dtype}")


kernel = Kernel
"""Decorates a function of a record `k` and of the bounds of a share of its tasks, `low` and `high`."""

read: Any = None
body: Any = None
"""These two stand for a kernel's own, which take their place among the globals of `_entry`: of functions that close
over compiled code numba keeps nothing on disk that another process would find."""


def _entry(data: Any) -> None:
    k, share, shares, tasks = read(data)
    body(k, tasks * share // shares, tasks * (share + 1) // shares)


@lru_cache
def layout(record: Any) -> tuple[tuple[str, int], ...]:
    """The kind of each field of a record, and its number of axes: 0 for a number."""
    hints = get_type_hints(record, include_extras=True).values()
    return tuple((hint.__name__, 0) if hint in (int, float) else hint.__metadata__ for hint in hints)


def table(record: Any, shares: int, tasks: int) -> Any:
    """A filled record as the numbers that compiled code reads."""
    numbers = [0, shares, tasks]
    for value, (kind, _) in zip(record, layout(record.__class__), strict=True):
        if kind == "int":
            numbers.append(value)
        elif kind == "float":
            numbers += struct.unpack("q", struct.pack("d", value))
        elif kind == "strided":
            size = value.element_size()
            numbers += (value.data_ptr(), *value.shape, *(size * stride for stride in value.stride()))
        else:
            numbers += (value.data_ptr(), _span(value))
    return np.array(numbers, np.int64)


def _span(tensor: Tensor) -> int:
    if tensor.is_contiguous():
        return tensor.numel()
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def reader(record: Any, number: Any) -> Any:
    """A function for compiled code: from a table's address to its record, the next share, and how many shares and
    tasks there are. Each call gets another share; `number` is the type of the record's numbers.
    """
    fields = [_Field(number, *each) for each in layout(record)]
    kinds = [field.type for field in fields]
    result = types.Tuple([types.NamedTuple(kinds, record), types.int64, types.int64, types.int64])

    @intrinsic
    def read(_context: Any, data: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            native = context.get_value_type(types.int64)
            (address,) = arguments
            start = builder.bitcast(address, native.as_pointer())
            share = builder.atomic_rmw("add", start, native(1), "monotonic")
            numbers = (builder.load(builder.gep(start, [native(place)])) for place in _count())
            next(numbers)
            shares, tasks = next(numbers), next(numbers)
            values = [field.value(context, builder, numbers) for field in fields]
            named, *_ = result
            return context.make_tuple(
                builder, result, [context.make_tuple(builder, named, values), share, shares, tasks]
            )

        return result(data), code

    return read


def _count() -> Iterator[int]:
    place = 0
    while True:
        yield place
        place += 1


class _Field:
    """A field of a record while code is generated."""

    def __init__(self, number: Any, kind: str, axes: int) -> None:
        self.kind, self.axes = kind, axes
        dtype = types.int64 if kind in ("int", "integers") else number
        self.type = types.Array(dtype, axes, "A" if kind == "strided" else "C") if axes else dtype

    def value(self, context: Any, builder: Any, numbers: Iterator[Any]) -> Any:
        """It, from the next numbers of the table."""
        first = next(numbers)
        if self.kind == "int":
            return first
        if self.kind == "float":
            wide = builder.bitcast(first, context.get_value_type(types.float64))
            return context.cast(builder, wide, types.float64, self.type)
        native = context.get_data_type(self.type.dtype)
        size = context.get_constant(types.intp, context.get_abi_sizeof(native))
        shape = [next(numbers) for _ in range(self.axes)]
        strides = [next(numbers) for _ in range(self.axes)] if self.kind == "strided" else [size]
        array = context.make_array(self.type)(context, builder)
        data = builder.inttoptr(first, native.as_pointer())
        populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return array._getvalue()
