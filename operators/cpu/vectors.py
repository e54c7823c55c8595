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
