"""The authors' modules, imported from clones of their repositories: none of their code is in this project.

`OPERATOR_ZOO_AUTHORS=DIR` says where the clones are: `DIR/OWNER/NAME`, bare ones too. `python -m tests.authors DIR`
makes them. What is read is the commit that a mixer's card names, whatever is checked out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import operators

CLONES = "OPERATOR_ZOO_AUTHORS"
_NAMED = re.compile(r"([\w.-]+/[\w.-]+) at ([0-9a-f]{7,40})\b")


def named(code: str) -> dict[str, str]:
    """Repository -> commit of all that a card's `code` (or a model's `source`) names."""
    return dict(_NAMED.findall(code))


@dataclass(frozen=True)
class Source:
    """A repository at a commit."""

    repository: str
    commit: str

    @classmethod
    def of(cls, mixer: str, repository: str | None = None) -> Source:
        """What the card of a mixer names; `repository` says which, where it names several."""
        return cls.within(operators.describe(mixer).code, repository)

    @classmethod
    def within(cls, text: str, repository: str | None = None) -> Source:
        """As `of`, of the `source` of a published model."""
        known = named(text)
        repository = next(iter(known)) if repository is None else repository
        return cls(repository, known[repository])

    def git(self, *arguments: str) -> str:
        """What git prints in the clone."""
        clone = Path(os.environ[CLONES], self.repository)
        done = subprocess.run(["git", "-C", clone, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def load(
        self,
        module: str,
        *,
        root: str = "",
        empty: Sequence[str] = (),
        stubs: Mapping[str, Mapping[str, Any]] | None = None,
        edits: Mapping[str, str] | None = None,
    ) -> ModuleType:
        """The module of this dotted name, with what it imports from the same repository.

        Args:
            root: folder of the repository that its names start from.
            empty: packages of the repository whose own code is left out (of what is below them it is not).
            stubs: module -> its attributes, in the place of modules that are not installed or need a GPU. Further
                attributes are placeholders, which as decorators change nothing.
            edits: text -> what takes its place, in whichever file has it; each must be found.
        """
        finder = _Finder(self, root, frozenset(empty), dict(edits or {}))
        with _hidden(module.partition(".")[0]), _stubbed(stubs or {}), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sys.meta_path.insert(0, finder)
            try:
                loaded = import_module(module)
            finally:
                sys.meta_path.remove(finder)
                for name in finder.found:
                    sys.modules.pop(name, None)
        unused = set(finder.edits) - finder.used
        assert not unused, f"{self.repository}: nothing has {unused}"
        return loaded


class _Finder(MetaPathFinder, InspectLoader):
    """Imports from a commit of a clone."""

    def __init__(self, source: Source, root: str, empty: frozenset[str], edits: Mapping[str, str]) -> None:
        self.source, self.root, self.empty, self.edits = source, root.strip("/"), empty, edits
        self.used: set[str] = set()
        self.found: dict[str, str] = {}
        self._files = set(source.git("ls-tree", "-r", "--name-only", source.commit).splitlines())
        self._folders = {str(parent) for file in self._files for parent in Path(file).parents}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        base = str(Path(self.root, *fullname.split(".")))
        if f"{base}.py" in self._files and fullname not in self.empty:
            self.found[fullname] = f"{base}.py"
        elif base in self._folders:
            initial = f"{base}/__init__.py"
            self.found[fullname] = initial if initial in self._files and fullname not in self.empty else ""
        else:
            return None
        return ModuleSpec(
            fullname, self, origin=f"{self.source.repository}/{base}", is_package=self.is_package(fullname)
        )

    def is_package(self, fullname: str) -> bool:
        return not self.found[fullname] or self.found[fullname].endswith("__init__.py")

    def get_source(self, fullname: str) -> str:
        path = self.found[fullname]
        text = self.source.git("show", f"{self.source.commit}:{path}") if path else ""
        for old, new in self.edits.items():
            if old in text:
                self.used.add(old)
                text = text.replace(old, new)
        return text


class _Placeholder(type):
    """Of whatever a stub does not have: called with a function it is a decorator that changes nothing."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and not kwargs and callable(args[0]) else cls

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name, (), {})


class _Stub(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name, (), {})


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """A package of that name, such as our own `models`, is not there."""
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
    for name in ours:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(ours)


@contextmanager
def _stubbed(stubs: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    names = {".".join(name.split(".")[: count + 1]) for name in stubs for count in range(name.count(".") + 1)}
    if "triton" in names:
        import_module("torch._dynamo")  # which looks for triton once, and is not to find a stub
    before = {name: sys.modules.get(name) for name in names}
    for name in sorted(names):
        module = _Stub(name)
        vars(module).update(stubs.get(name, {}))
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    try:
        yield
    finally:
        for name, module_before in before.items():
            del sys.modules[name]
            if module_before is not None:
                sys.modules[name] = module_before
