"""Whether a value is of the type that a parameter's annotation says, as it is written in the source."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from operators.errors import InputError

_PLAIN = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false", "None": "null"}
_SEQUENCES = ("Sequence", "list", "tuple")


def check(what: str, value: Any, annotation: str) -> None:
    """Raise `InputError` unless `value` is what `annotation` says; names that are not known here allow everything."""
    kind = ast.parse(annotation, mode="eval").body
    if not _fits(value, kind):
        raise InputError(f"{what}={value!r} must be {_words(kind)}")


def _fits(value: Any, kind: ast.expr) -> bool:
    if isinstance(kind, ast.BinOp):
        return _fits(value, kind.left) or _fits(value, kind.right)
    name, inner = _parts(kind)
    plain = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "None": value is None,
        "Mapping": isinstance(value, Mapping) and all(_fits(item, inner[-1]) for item in value.values() if inner),
        **dict.fromkeys(
            _SEQUENCES, isinstance(value, list | tuple) and all(_fits(item, inner[0]) for item in value if inner)
        ),
    }
    return plain.get(name, True)


def _parts(kind: ast.expr) -> tuple[str, list[ast.expr]]:
    """The name of a type and what stands in its brackets."""
    if isinstance(kind, ast.Subscript):
        inner = kind.slice
        return ast.unparse(kind.value), list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    return ast.unparse(kind), []


def _words(kind: ast.expr) -> str:
    if isinstance(kind, ast.BinOp):
        return f"{_words(kind.left)} or {_words(kind.right)}"
    name, inner = _parts(kind)
    if name in _SEQUENCES:
        return "a list" + (f" [{_words(inner[0])}, ...]" if inner else "")
    return _PLAIN.get(name, "a mapping")
