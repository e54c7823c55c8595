"""Mixers of other packages, found through entry points, that are broken in some way."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

from tests.hostile.case import FAILED, OK, REFUSED, Case, Step, run
from tests.hostile.making import put

ENVIRONMENT = {"PYTHONPATH": "{work}/site:{root}", "PYTHONDONTWRITEBYTECODE": "1"}
CARD = """\
import torch
from torch import nn
from operators import Core, Cost, MixerCard, Site, register

CARD = MixerCard(
    name="{name}", title="A stranger", source="nobody", year=2025, equation="y = x", position_aware=False,
    permutation_equivariant=True, translation_equivariant="circular", linear=True, backends=("torch",),
)
"""
CORE = """\
@register(CARD)
class Stranger(Core):
    def __init__(self, site: Site, *, backend: str = "auto"{parameter}) -> None:
        super().__init__(site, backend=backend)
        {start}
    def forward(self, u, *, x, cond=None):
        {forward}
    def core_cost(self, height, width):
        {cost}
"""
BODY = {"name": "stranger", "parameter": "", "start": "pass", "forward": "return u", "cost": "return Cost()"}


def package(source: str, *, point: str = "stranger = stranger_mixer") -> tuple[Step, ...]:
    meta = "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n"
    return (
        put("site/stranger_mixer.py", source),
        put("site/stranger-1.0.dist-info/METADATA", meta),
        put("site/stranger-1.0.dist-info/entry_points.txt", f"[operator_zoo.mixers]\n{point}\n"),
    )


def source(**change: str) -> str:
    parts = {**BODY, **change}
    return (CARD + "\n\n" + CORE).format(**parts)


def stranger(
    name: str,
    text: str,
    *words: str,
    command: str = "",
    allowed: tuple[int, ...] = (REFUSED,),
    point: str = "stranger = stranger_mixer",
    traces: str = "",
) -> Case:
    chosen = command or run("mixer=stranger", *words)
    return Case(name, chosen, package(text, point=point), allowed, environment=ENVIRONMENT, traces=traces)


WIDTH = ", scale: float = 1.0"
CASES = [
    stranger("good", source(), allowed=(OK,)),
    stranger("good in the list", source(), command="-m operators", allowed=(OK,)),
    stranger("does not import", "import nothing_there\n"),
    stranger("does not import, in the list", "import nothing_there\n", command="-m operators", allowed=(OK,)),
    stranger("does not parse", "def (:\n", command="-m operators describe stranger"),
    stranger("leaves the process", "raise SystemExit(77)\n", command="-m operators describe pool", allowed=(OK, REFUSED)),
    stranger("is interrupted", "raise KeyboardInterrupt\n", command="-m operators describe pool", allowed=(OK, REFUSED)),
    stranger("names a module that is not there", "", point="stranger = nowhere.module"),
    # Read without torch, whose own import fails of it.
    stranger("an entry point that is malformed", "", point="stranger", command="-m operators.benchmark --mixers pol"),
    stranger("takes a name of ours", source(name="pool"), command="-m operators", allowed=(OK,)),
    stranger("a name that is a path", source(name="../evil"), command="-m operators", allowed=(OK, REFUSED)),
    stranger("a parameter of the wrong kind", source(parameter=WIDTH, start="self.scale = 1.0 / scale"), "mixer.scale=big"),
    stranger("a parameter that is null", source(parameter=WIDTH, start="self.scale = 1.0 / scale"), "mixer.scale=null"),
    stranger("a parameter that is a list", source(parameter=WIDTH, start="self.scale = 1.0 / scale"), "mixer.scale=[1]"),
    stranger("a parameter that it does not take", source(), "mixer.scale=1"),
    stranger("a division by zero in its start", source(parameter=WIDTH, start="self.scale = 1.0 / scale"), "mixer.scale=0",
             allowed=(FAILED,), traces="stranger_mixer.py"),
    stranger("an output of another shape", source(forward="return u[:, :1]"), allowed=(FAILED, REFUSED)),
    stranger("an output of another type", source(forward="return u.double()"), allowed=(OK, FAILED, REFUSED)),
    stranger("an output that is no tensor", source(forward="return None"), allowed=(FAILED, REFUSED)),
    stranger("an error in its forward", source(forward="raise ValueError('evil')"), allowed=(FAILED,), traces="stranger_mixer.py"),
    stranger("no cost", source(cost="return None"), allowed=(FAILED, REFUSED)),
    stranger("a cost that fails", source(cost="return 1 / 0"), command="-m operators", allowed=(OK, FAILED, REFUSED)),
    stranger("not a number", source(forward="return u * float('nan')"), allowed=(FAILED,)),
]  # fmt: skip
