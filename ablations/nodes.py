"""Values of a study's YAML, checked one by one: each refusal says where it stands and what is allowed there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from operators.errors import InputError, check_names

MOST_LEVELS = 1000
"""Of a factor; choices of a dimension; levels that are tuned."""
LONGEST_NAME = 100
"""Characters of a name, and of a study's bytes: it is also that of a folder."""
_PLAIN = re.compile(r"(?!\.+$)[\w .,=+/^-]+")
# What systems keep for themselves, with any ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def label(value: Any) -> str:
    """A level in words: `none`, `true`, `0.5`, `convection, diffusion`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(label, value)) or "[]"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {label(item)}" for key, item in value.items()) or "{}"
    return str(value)


def check_name(what: str, name: Any) -> str:
    """`name`, if it can name a thing of a study, in a table and on disk."""
    if not isinstance(name, str) or not _PLAIN.fullmatch(name) or len(name) > LONGEST_NAME:
        signs = "letters, digits, spaces, and . , = + - / ^ _, but not of dots alone"
        raise InputError(f"{what} name={short(name)} must be a text of at most {LONGEST_NAME} {signs}")
    return name


def check_study_name(name: Any) -> str:
    """`name`, if it can name a study, and the folder that the study goes to unless it is told another."""
    check_name("study", name)
    assert isinstance(name, str)
    taken = name.strip(" .") != name or name.startswith("-") or _DEVICES.fullmatch(name)
    if taken or "/" in name or len(name.encode()) > LONGEST_NAME:
        raise InputError(
            f"study name={name!r} must be the name of a folder: at most {LONGEST_NAME} bytes, without /, no . or space "
            "at either end, no - at the beginning, and no device such as nul"
        )
    return name


def short(value: Any) -> str:
    """`value` as Python writes it, cut to the length of a name."""
    text = repr(value)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def text(what: str, value: Any) -> str:
    """`value`, which must be a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{what}={short(value)} must be a text")
    return value


def switch_label(value: Any) -> str:
    """YAML reads `off` and `on` as booleans; as labels they are words."""
    return ("on" if value else "off") if isinstance(value, bool) else label(value)


def key(value: Any) -> str:
    """`value`, which must have the form of a key or group of run.py."""
    if not isinstance(value, str) or not re.fullmatch(r"\+{0,2}\w+([./]\w+)*", value):
        raise InputError(f"key={short(value)} must be a key or a group of run.py, such as optimizer.lr or mixer")
    return value


def mapping(
    what: str, node: Any, allowed: Sequence[str] | Mapping[str, Any] | None = None, needed: Sequence[str] = ()
) -> dict[str, Any]:
    """`node`, which must be a mapping with all the keys `needed` and none that is not `allowed` (None: any)."""
    if not isinstance(node, Mapping):
        raise InputError(f"{what} must be a mapping, not {short(node)}")
    if allowed is not None:
        check_names(what, map(str, node), allowed)
    for name in needed:
        if name not in node:
            raise InputError(f"{what} has no {name!r}")
    return {str(key): value for key, value in node.items()}


def items(what: str, node: Any) -> list[Any]:
    """`node`, which must be a list; nothing is the empty list."""
    if node is not None and not isinstance(node, list):
        raise InputError(f"{what} must be a list, not {short(node)}")
    return list(node or [])


def strings(what: str, node: Any) -> tuple[str, ...]:
    """`node`, which must be a list of texts; nothing is the empty list."""
    texts = items(what, node)
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{what} must be a list of texts, such as [model.dim=48], not {short(texts)}")
    return tuple(texts)


def terms(what: str, node: Any, factors: Mapping[str, Any]) -> tuple[str, ...]:
    """`node`, which must be a list of terms such as `a` or `a:b`; each with its factors in the order of `factors`."""
    seen = []
    for text in strings(what, node):
        names = [name.strip() for name in text.split(":")]
        check_names(what, names, factors)
        if len(set(names)) < len(names) or len(names) > 3:
            raise InputError(f"{what} has {text!r}: give a factor, or two or three different ones as a:b")
        seen.append(":".join(name for name in factors if name in names))
    return tuple(seen)
