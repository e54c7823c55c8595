"""The shape of the house; and that the check of it can fail."""

from __future__ import annotations

from pathlib import Path

from tests import private_interfaces, structure


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = (root / name.replace("__", "/")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_no_import_runs_up_or_in_a_circle_and_no_folder_is_full() -> None:
    edges = structure.graph()
    assert len(edges) > 150
    assert structure.upward(edges) == []
    assert structure.circles(edges) == []
    assert structure.full() == []
    assert structure.doubles() == []
    assert private_interfaces.uses({**structure.modules(), "run": structure.ROOT / "run.py"}) == []
    assert structure.by_position() == []
    assert structure.long() == []
    assert structure.curt() == []


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        operators__a="from operators import b",
        operators__b="def late():\n    import operators.c",
        operators__c="from operators.a import x",
        operators__d="from models.e import y",
        models__e="from operators import d",
        ablations__reporting__page="import operators.a",
        ablations__analysis__summary="from ablations.reporting import page",
        ablations__scheduling__runner="from ablations import report\nfrom ablations.analysis import summary",
        ablations__report="from ablations.analysis import summary",
        **{f"tasks__f{n}": "" for n in range(structure.MOST_FILES + 1)},
    )
    edges = structure.graph(tmp_path)
    assert structure.upward(edges) == [
        "operators.d imports models.e",
        "ablations.analysis.summary imports ablations.reporting.page",
        "ablations.scheduling.runner imports ablations.analysis.summary",
        "ablations.scheduling.runner imports ablations.report",
    ]
    assert structure.circles(edges) == ["operators.a, operators.b, operators.c", "models.e, operators.d"]
    assert structure.full(tmp_path) == ["tasks: 16 files"]


def test_class_of_two_meanings_is_found(tmp_path: Path) -> None:
    write(tmp_path, operators__a="class A: ...\nclass B: ...", tasks__b="def f():\n    class A: ...")
    assert structure.doubles(tmp_path) == ["class A: operators.a, tasks.b"]


PRIVATE = """
import hydra._internal.utils
from torch._C import _functorch
from torch.utils import _pytree
from lightning.pytorch import Callback
from models._own import _mine

class Base(Callback):
    _level = 1

    def f(self, other):
        self._a = self._b + self._level
        return other._c, getattr(other, "_d", None), self.__class__, other.__dict__

class Derived(Base):
    def g(self):
        return self._a, self._e
"""


def test_private_interface_elsewhere_is_found(tmp_path: Path) -> None:
    write(tmp_path, tasks__a=PRIVATE, tasks__system__lightning_private=PRIVATE)
    assert private_interfaces.uses(structure.modules(tmp_path)) == [
        "tasks.a:2 hydra._internal.utils",
        "tasks.a:3 torch._C._functorch",
        "tasks.a:4 torch.utils._pytree",
        "tasks.a:13 getattr(other, '_d', None)",
        "tasks.a:13 other._c",
        "tasks.a:12 self._b",
        "tasks.a:17 self._e",
    ]


def test_tables_that_are_read_by_position_are_found(tmp_path: Path) -> None:
    source = "t[29]\nt[2 * axis]\nt[0], t[-1]\nx.shape[1]\nt[31:34]\nt[:16]\nwaves[1, turn]\nx[1::2]\nt[-3] = 0\n"
    write(tmp_path, operators__cpu__kernel=source, operators__scan__other="t[29]")
    found = [line.removeprefix("operators/cpu/kernel.py:") for line in structure.by_position(tmp_path)]
    assert found == ["1: t[29]", "5: t[31:34]", "7: waves[1, turn]", "9: t[-3]"]


def test_long_files_and_docstrings_of_few_words_are_found(tmp_path: Path) -> None:
    write(tmp_path, operators__a='"""Three short words."""\n' + "x = 1\n" * 350, tasks__b='"""This one has four."""\n')
    assert structure.long(tmp_path) == ["operators/a.py: 351 lines"]
    assert structure.curt(tmp_path) == ["operators/a.py: docstring 'Three short words.'"]
