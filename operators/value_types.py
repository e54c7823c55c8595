"""Whether a value is of the kind that a parameter's annotation names, without importing what the annotation is from."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal

from operators.errors import InputError, nearest

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", NoneType: "null"}
_KNOWN = {**vars(typing), "Sequence": Sequence, "Iterable": Iterable, "Mapping": Mapping, "typing": typing}


def check(what: str, value: Any, annotation: Any) -> None:
    """Raise `InputError` unless `value` is what `annotation`, a type or the source of one, allows.

    Annotations that name anything but types of configurations allow everything.
    """
    hint = _resolved(annotation)
    if not _allows(hint, value):
        parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
        literals = [choice for part in parts if typing.get_origin(part) is Literal for choice in typing.get_args(part)]
        raise InputError(f"{what}={value!r} must be {word(hint)}{nearest(value, literals)}")


def as_annotated(value: Any, annotation: Any) -> Any:
    """`value`, an integer as a float where only a float is meant: a command line writes 2 for both."""
    hint = _resolved(annotation)
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and float in parts and int not in parts else value


def _resolved(annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(_KNOWN))  # of the source of a constructor, which is about to be carried out
    except (NameError, AttributeError, TypeError, SyntaxError):  # what only its module or a type checker knows
        return Any


def _allows(hint: Any, value: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return any(_allows(part, value) for part in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if hint is None or hint in _WORDS:
        return _is(NoneType if hint is None else hint, value)
    container = origin or hint
    if container in (tuple,) and inner and inner[-1] is not Ellipsis:
        fits = isinstance(value, list | tuple) and len(value) == len(inner)
        return fits and all(_allows(part, entry) for part, entry in zip(inner, value, strict=True))
    if container in (list, tuple, set, frozenset, Sequence, Iterable):
        part = inner[0] if inner else Any
        return isinstance(value, list | tuple) and all(_allows(part, entry) for entry in value)
    if container in (dict, Mapping):
        keys, values = inner or (Any, Any)
        return isinstance(value, Mapping) and all(_allows(keys, k) and _allows(values, v) for k, v in value.items())
    return True


def _is(kind: type, value: Any) -> bool:
    """Whether `value` is of the `kind`: an integer is a number too, and true is neither."""
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def word(annotation: Any) -> str:
    """What an annotation, a type or the source of one, allows: `an integer or null`."""
    hint = _resolved(annotation)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return " or ".join(word(part) for part in inner)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if hint is None or hint in _WORDS:
        return _WORDS[NoneType if hint is None else hint]
    container = origin or hint
    if container is tuple and inner and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}: " + ", ".join(map(word, inner))
    if container in (dict, Mapping):
        return "a mapping" + (f" whose values are each {word(inner[1])}" if inner and inner[1] in _WORDS else "")
    return "a list" + (f" whose entries are each {word(inner[0])}" if inner and inner[0] in _WORDS else "")
