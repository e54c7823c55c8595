"""Private names of torch, Lightning, Optuna and Hydra stand in one file for each of these libraries, `*_private.py`.

What is found elsewhere: imports of a private module or name, a private attribute of anything but the object itself, and
one that a class takes from a base of another library.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARIES = ("torch", "lightning", "optuna", "hydra", "omegaconf", "torchmetrics")
FILES = ("torch_private.py", "lightning_private.py", "optuna_private.py", "hydra_private.py")
STANDARD = ("_exit", "_option_string_actions", "_fields", "_asdict", "_getvalue")
"""Private by name alone: Python documents `os._exit` and what named tuples offer, numba's guide to extensions documents
`_getvalue`; and the options of `argparse`."""


@dataclass(frozen=True)
class Owner:
    """A class: the private names that it defines, those that it reads off `self` with their lines, and its bases."""

    defined: frozenset[str]
    read: Mapping[str, int]
    bases: tuple[str, ...]


@cache
def tree(path: Path) -> ast.Module:
    """The syntax of a file, parsed the first time that it is asked for."""
    return ast.parse(path.read_text(encoding="utf-8"))


def uses(paths: Mapping[str, Path]) -> list[str]:
    """Private interfaces used outside their file, as `module:line name`."""
    trees = {name: tree(path) for name, path in sorted(paths.items()) if path.name not in FILES}
    found = [f"{name}:{line} {what}" for name, root in trees.items() for line, what in sorted(_outright(root))]
    owners = {
        node.name: (name, _owner(node))
        for name, root in trees.items()
        for node in ast.walk(root)
        if isinstance(node, ast.ClassDef)
    }
    for name, owner in owners.values():
        known = _known(owner, {key: other for key, (_, other) in owners.items()})
        found += [f"{name}:{line} self.{read}" for read, line in owner.read.items() if read not in known]
    return found


def private(name: str) -> bool:
    """Whether a dotted name has a part that begins with one underscore, or with two and does not end so."""
    parts = name.split(".")
    return any(
        part.startswith("_") and not (part.startswith("__") and part.endswith("__")) and part not in STANDARD
        for part in parts
    )


def _outright(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in LIBRARIES and private(name))
        if isinstance(node, ast.Attribute) and private(node.attr) and ast.unparse(node.value) not in ("self", "cls"):
            yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and private(str(name.value)):
                yield node.lineno, ast.unparse(node)


def _owner(node: ast.ClassDef) -> Owner:
    defined, read = set(), {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef):
            defined.add(inner.name)
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            defined.add(inner.id)
        elif isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "self" and private(inner.attr):
            if isinstance(inner.ctx, ast.Store):
                defined.add(inner.attr)
            else:
                read.setdefault(inner.attr, inner.lineno)
    bases = tuple(ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases)
    return Owner(frozenset(defined), read, bases)


def _known(owner: Owner, owners: Mapping[str, Owner]) -> set[str]:
    """What the class and its bases in this project define."""
    inherited = (_known(owners[base], owners) for base in owner.bases if base in owners)
    return set(owner.defined).union(*inherited)
