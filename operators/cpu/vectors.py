"""Compiled operations on vectors of 16 numbers, written as Python functions of places in arrays: see `lanes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTH = 16


class Lanes:
    """A vector of 16 numbers while code is generated."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _of(self, other: Any) -> Any:
        if isinstance(other, Lanes):
            return other.value
        return ir.Constant(self.value.type, [float(other)] * WIDTH)

    def __add__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.value, self._of(other), flags=("contract",)))

    def __sub__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.value, self._of(other), flags=("contract",)))

    def __mul__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.value, self._of(other), flags=("contract",)))

    def __neg__(self) -> Lanes:
        return Lanes(self.builder, self.builder.fneg(self.value))


class Complex(NamedTuple):
    """A vector of 16 complex numbers."""

    re: Lanes
    im: Lanes

    def plus(self, other: Complex) -> Complex:
        return Complex(self.re + other.re, self.im + other.im)

    def minus(self, other: Complex) -> Complex:
        return Complex(self.re - other.re, self.im - other.im)

    def times(self, other: Complex) -> Complex:
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def scaled(self, factor: Any) -> Complex:
        return Complex(self.re * factor, self.im * factor)

    def turned(self) -> Complex:
        """The number times -i: a quarter turn."""
        return Complex(self.im, -self.re)

    def conjugate(self) -> Complex:
        return Complex(self.re, -self.im)


class Place:
    """A place in a flat array while code is generated."""

    def __init__(self, builder: Any, pointer: Any, align: int) -> None:
        self.builder, self.pointer, self.align = builder, pointer, align

    def moved(self, by: Any) -> Place:
        """`by` numbers further: a number of Python's or one of the generated code's."""
        offset = ir.Constant(ir.IntType(64), by) if isinstance(by, int) else by
        return Place(self.builder, self.builder.gep(self.pointer, [offset]), self.align)

    def after(self, steps: int, step: Any) -> Place:
        """`steps` times `step` numbers further."""
        return self.moved(self.builder.mul(ir.Constant(ir.IntType(64), steps), step)) if steps else self

    def times(self, steps: Any, step: Any) -> Place:
        """As `after`, for steps of the generated code."""
        return self.moved(self.builder.mul(steps, step))

    def zeros(self) -> Lanes:
        """A vector of zeros of the array's type."""
        return Lanes(self.builder, ir.VectorType(self.pointer.type.pointee, WIDTH)(None))

    @property
    def _vector(self) -> Any:
        number = self.pointer.type.pointee
        return self.builder.bitcast(self.pointer, ir.VectorType(number, WIDTH).as_pointer())

    def load(self) -> Lanes:
        return Lanes(self.builder, self.builder.load(self._vector, align=self.align))

    def store(self, value: Lanes) -> None:
        self.builder.store(value.value, self._vector, align=self.align)

    def number(self, index: int) -> Lanes:
        """One number, 16 times."""
        vector = ir.VectorType(self.pointer.type.pointee, WIDTH)
        factor = self.builder.load(self.moved(index).pointer, align=self.align)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), factor, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return Lanes(self.builder, self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros))


def _place(context: Any, builder: Any, array_type: Any, _index_type: Any, array: Any, index: Any) -> Place:
    data = context.make_array(array_type)(context, builder, array).data
    align = context.get_abi_sizeof(context.get_value_type(array_type.dtype))
    return Place(builder, builder.gep(data, [index]), align)


def lanes(body: Callable[..., None]) -> Any:
    """An operation for compiled code, called with one tuple: a pair (flat array, index) is a `Place` in the body.

    Whole numbers in the tuple are what they are, tuples of them are lists. The body is run once, when code is
    generated.
    """

    @intrinsic
    def operation(_context: Any, given: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (packed,) = arguments
            values = []
            for kind, value in zip(given.types, cgutils.unpack_tuple(builder, packed), strict=True):
                if not isinstance(kind, types.BaseTuple):
                    values.append(value)
                elif isinstance(kind, types.UniTuple):
                    values.append(cgutils.unpack_tuple(builder, value))
                else:
                    values.append(_place(context, builder, *kind.types, *cgutils.unpack_tuple(builder, value)))
            body(*values)
            return context.get_dummy_value()

        return types.void(given), code

    return operation


class Sum:
    """A vector in a variable of the generated code, to which products are added."""

    def __init__(self, start: Lanes) -> None:
        self.builder = start.builder
        self.variable = cgutils.alloca_once_value(start.builder, start.value)

    def add_product(self, left: Lanes, right: Lanes) -> None:
        self.builder.store((self.value + left * right).value, self.variable)

    @property
    def value(self) -> Lanes:
        return Lanes(self.builder, self.builder.load(self.variable))


@lanes
def copy16(target: Place, source: Place) -> None:
    """Copy 16 numbers as one vector.

    Loops of that length LLVM compiles for any length, with a test whether the arrays overlap.
    """
    target.store(source.load())


@lanes
def add_products16(total: Place, one: Place, one_step: Any, other: Place, other_step: Any, count: Any) -> None:
    """Add to the total `count` products of vectors, the places of which move on by a step."""
    products = Sum(total.load())
    with cgutils.for_range(total.builder, count) as loop:
        first, second = one.times(loop.index, one_step), other.times(loop.index, other_step)
        products.add_product(first.load(), second.load())
    total.store(products.value)


@lanes
def prefetch(place: Place) -> None:
    """Have the processor fetch what memory holds around a place, which need not exist, while it goes on."""
    builder, number = place.builder, ir.IntType(32)
    # For reading; into the second-level cache; data, not code.
    how = [number(0), number(2), number(1)]
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(fetch, [builder.bitcast(place.pointer, cgutils.voidptr_t), *how])
