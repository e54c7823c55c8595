"""Flags of the benchmarks, and the tables that they add to."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

from tests.hostile.case import FAILED, OK, REFUSED, Case, Step
from tests.hostile.making import folder, put

SMALL = "--grids 4 --batch 1 --dim 8 --repeats 1 --mixers pool --rivals none --out outputs/bench"


def flags(name: str, words: str, *steps: Step, allowed: tuple[int, ...] = (REFUSED,)) -> Case:
    """A small benchmark with some of its flags replaced by `words`."""
    kept = SMALL.split()
    for word in (word for word in words.split() if word.startswith("--")):
        if word in kept:
            at = kept.index(word)
            del kept[at : at + 2]
    return Case(name, " ".join(["-m operators.benchmark", *kept, words]), steps, allowed)


CASES = [
    flags("good", "", allowed=(OK,)),
    flags("unknown flag", "--speed 4"),
    flags("a mixer of nothing", "--mixers pol"),
    flags("no mixer", "--mixers ,"),
    flags("a grid of words", "--grids small"),
    flags("a grid below zero", "--grids=-4"),
    flags("a grid of 99,999", "--grids 99999", allowed=(OK, REFUSED)),
    flags("a grid with three sides", "--grids 4x4x4"),
    flags("a batch of zero", "--batch 0"),
    flags("a batch of words", "--batch many"),
    flags("a batch of 10^12", "--batch 1000000000000", allowed=(OK, REFUSED)),
    flags("a width of 10^9", "--dim 1000000000", allowed=(OK, REFUSED)),
    flags("a width that heads do not divide", "--dim 7 --mixers attention --set attention.heads=2", allowed=(REFUSED,)),
    flags("types of nothing", "--dtypes float8"),
    flags("a device that is missing", "--devices cuda"),
    flags("a level of nothing", "--level trunk"),
    flags("a setting without a mixer", "--set state=1"),
    flags("a setting without a value", "--set pool.size"),
    flags("a setting of another mixer", "--set attention.heads=1"),
    flags("a setting of nothing", "--set pool.sizes=3"),
    flags("a setting that is refused", "--set pool.size=4"),
    flags("a setting with a list left open", "--set 'pool.size=[3'"),
    flags("a reference that is not there", "--reference attention"),
    flags("rivals of nothing", "--rivals torch9"),
    flags("repeats without end", "--repeats 0"),
    flags("threads of zero", "--threads 0"),
    flags("threads of 10^6", "--threads 1000000", allowed=(OK, REFUSED)),
    flags("minutes that are no number", "--minutes nan"),
    flags("minutes below zero", "--minutes=-1"),
    flags("memory that is no number", "--memory nan"),
    flags("memory without end", "--memory inf", allowed=(OK, REFUSED)),
    flags("memory of nothing", "--memory 0", allowed=(OK, REFUSED)),
    flags("results in a file", "--out file", put("file", "x")),
    flags("results in proc", "--out /proc/bench"),
    flags("results below a file", "--out file/x", put("file", "x")),
    flags("results in a full device", "--out /dev/full"),
    Case("models: a model of nothing", "-m models.benchmark --model vit_nono --grids 8"),
    Case("models: a grid of words", "-m models.benchmark --model vit_nano --grids small"),
    Case("models: a mixer of nothing", "-m models.benchmark --model vit_nano --mixers pol"),
    Case("overhead: a setting of nothing", "-m tasks.overhead model.depht=3"),
    Case("overhead: no word", "-m tasks.overhead seed"),
    Case("overhead: a flag", "-m tasks.overhead --help", allowed=(OK, REFUSED)),
    Case("overhead: no steps", "-m tasks.overhead trainer.max_steps=0"),
    Case("zoo: a mixer of nothing", "-m operators describe pde_sms"),
    Case("zoo: no mixer", "-m operators describe"),
    Case("zoo: a command of nothing", "-m operators list"),
    Case("zoo: a name with markup", "-m operators describe '[bold]x[/]'"),
    Case("zoo: a name of bytes", "-m operators describe \udcff"),
    Case("worker by itself", "-m ablations.scheduling.worker", allowed=(FAILED, REFUSED)),
    Case("benchmark: results where a folder is a table", f"-m operators.benchmark {SMALL}", (folder("outputs/bench"),), (OK,)),
]  # fmt: skip
