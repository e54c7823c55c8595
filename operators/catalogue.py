"""The zoo's own mixers, read from the source of their files: cards and parameters, without importing torch.

The card in a mixer's file stays the single source. It has to consist of literals, of constants of its file that are
literals, and of names from modules that import no torch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from operators.card import MixerCard

_ROOT = Path(__file__).parent / "mixers"
_MARK = "@register("


@dataclass(frozen=True)
class Entry:
    """A mixer before its module is imported.

    Attributes:
        card: as `operators.describe` gives it.
        module: where its core is.
        core: the name of the class.
        parameters: annotations of the core's own parameters, as they are written.
    """

    card: MixerCard
    module: str
    core: str
    parameters: Mapping[str, str]


@cache
def entries() -> Mapping[str, Entry]:
    """The mixers of `operators.mixers` by name."""
    cards = {}
    for path in sorted(_ROOT.rglob("*.py")):
        place = path.relative_to(_ROOT)
        text = path.read_text(encoding="utf-8")
        if f"\n{_MARK}" in text:
            module = ".".join(("operators.mixers", *place.with_suffix("").parts))
            cards.update({entry.card.name: entry for entry in _read(ast.parse(text, str(path)), module)})
    return cards


def keyword_parameters(path: Path, name: str) -> dict[str, tuple[str, ast.expr | None]]:
    """Annotation and default of each keyword-only parameter of the constructor of the class `name` in the file `path`.

    Empty where the class has no constructor of its own.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return _keywords(next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name))


def _keywords(node: ast.ClassDef) -> dict[str, tuple[str, ast.expr | None]]:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            pairs = zip(part.args.kwonlyargs, part.args.kw_defaults, strict=True)
            return {a.arg: (ast.unparse(a.annotation) if a.annotation else "Any", default) for a, default in pairs}
    return {}


def _read(tree: ast.Module, module: str) -> Iterator[Entry]:
    for node in tree.body:
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "register":
                assert isinstance(node, ast.ClassDef)
                own = {key: pair for key, pair in _keywords(node).items() if key != "backend"}
                defaults = {key: _value(default, tree) for key, (_, default) in own.items() if default is not None}
                card = replace(_value(decorator.args[0], tree), defaults=defaults)
                yield Entry(card, module, node.name, {key: annotation for key, (annotation, _) in own.items()})


def _value(expression: ast.expr, tree: ast.Module) -> Any:
    """What an expression of a module is, once the names in it are known; nothing else of the module is carried out."""
    names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    known = dict(_names(tree, names))
    return eval(compile(ast.Expression(expression), "<card>", "eval"), known)  # a file of this package


def _names(tree: ast.Module, wanted: set[str]) -> Iterator[tuple[str, Any]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in wanted:
            yield node.targets[0].id, _value(node.value, tree)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) in wanted:
                    yield alias.asname or alias.name, getattr(import_module(node.module), alias.name)
