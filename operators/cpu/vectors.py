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
        """-i times it."""
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
        one = self.builder.load(self.moved(index).pointer, align=self.align)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return Lanes(self.builder, self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros))


def lanes(body: Callable[..., None]) -> Any:
    """An operation for compiled code, called with one tuple: a pair (flat array, index) is a `Place` in the body.

    Whole numbers in the tuple are what they are. The body is run once, when code is generated.
    """

    @intrinsic
    def operation(_context: Any, given: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = []
            for kind, value in zip(given.types, cgutils.unpack_tuple(builder, arguments[0]), strict=True):
                if not isinstance(kind, types.BaseTuple):
                    values.append(value)
                    continue
                array, index = cgutils.unpack_tuple(builder, value)
                data = context.make_array(kind.types[0])(context, builder, array).data
                align = context.get_abi_sizeof(context.get_value_type(kind.types[0].dtype))
                values.append(Place(builder, builder.gep(data, [index]), align))
            body(*values)
            return context.get_dummy_value()

        return types.void(given), code

    return operation
