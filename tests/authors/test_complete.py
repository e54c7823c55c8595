"""Every mixer whose card names its authors' code is compared with it."""

from __future__ import annotations

import ast
from pathlib import Path

import operators
from tests.authors.source import named


def test_every_repository_on_a_card_has_a_comparison() -> None:
    tests = {
        node.name.removeprefix("test_").partition("__")[0]
        for file in Path(__file__).parent.rglob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    compared = {mixer for mixer in operators.names() if named(operators.describe(mixer).code)}
    assert not compared - tests, "no test_MIXER or test_MIXER__WHAT in this folder"
