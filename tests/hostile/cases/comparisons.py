"""Run directories that were damaged or are none, before `ablations.compare`."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.hostile.case import OK, REFUSED, Case, Step
from tests.hostile.making import copy, cut, fifo, folder, link, put, remove
from tests.hostile.store import Store

BINARY = bytes(range(256)) * 4
_FILES = ("config.yaml", "metrics.json", "provenance.json")


def changed(path: str, key: str, value: Any = ...) -> Step:
    """A JSON file with the value of `key`, dots between keys, replaced or removed."""

    def step(work: Path, _: Store) -> None:
        tree = json.loads((work / path).read_text())
        *parents, last = key.split(".")
        at = tree
        for parent in parents:
            at = at[parent]
        if value is ...:
            del at[last]
        else:
            at[last] = value
        (work / path).write_text(json.dumps(tree))

    return step


def one(name: str, *steps: Step, allowed: tuple[int, ...] = (REFUSED,), words: str = "run") -> Case:
    return Case(name, f"-m ablations.compare {words}", (copy("run"), *steps), allowed)


TWO = copy("run", "other")
CASES = [
    one("good", allowed=(OK,)),
    Case("no argument", "-m ablations.compare"),
    Case("unknown flag", "-m ablations.compare --best run", (copy("run"),)),
    Case("an empty folder", "-m ablations.compare x", (folder("x"),)),
    Case("a file", "-m ablations.compare x", (put("x", "x"),)),
    Case("a device", "-m ablations.compare /dev/null"),
    Case("a pattern", "-m ablations.compare '**'"),
    one("a metric that is not there", words="run --metric test/acuracy"),
    one("a metric that is a text", words="run --metric backend"),
    one("a reference that is not there", words="run --reference mixer=nothing"),
    *(one(f"{name} is binary", put(f"run/{name}", BINARY)) for name in _FILES),
    *(one(f"{name} is empty", put(f"run/{name}")) for name in _FILES),
    *(one(f"{name} is a folder", remove(f"run/{name}"), folder(f"run/{name}")) for name in _FILES),
    *(one(f"{name} is a list", put(f"run/{name}", "[1, 2]")) for name in _FILES),
    *(one(f"{name} is a pipe", remove(f"run/{name}"), fifo(f"run/{name}")) for name in _FILES[:2]),
    one("metrics.json is null", put("run/metrics.json", "null")),
    one("metrics.json is cut", cut("run/metrics.json", 0.5)),
    one("metrics.json is nested 100,000 deep", put("run/metrics.json", "[" * 100_000)),
    one("metrics.json has a number of 5,000 digits", put("run/metrics.json", '{"test/accuracy": ' + "9" * 5000 + "}")),
    one("no status", changed("run/metrics.json", "status")),
    one("a status that is a number", changed("run/metrics.json", "status", 5), allowed=(OK, REFUSED)),
    one("no task", changed("run/metrics.json", "task")),
    one("no data", changed("run/metrics.json", "data")),
    one("data that is a list", changed("run/metrics.json", "data", ["a"])),
    one("no accuracy", changed("run/metrics.json", "test/accuracy")),
    one("accuracy as text", changed("run/metrics.json", "test/accuracy", "good")),
    one("accuracy that is null", changed("run/metrics.json", "test/accuracy", None)),
    one("accuracy that is not finite", changed("run/metrics.json", "test/accuracy", float("nan")), allowed=(OK, REFUSED)),
    one("accuracy in a list", changed("run/metrics.json", "test/accuracy", [0.5])),
    one("no parameters", changed("run/metrics.json", "params")),
    one("parameters as text", changed("run/metrics.json", "params", "many")),
    one("seconds that are null", changed("run/metrics.json", "train/seconds", None), allowed=(OK, REFUSED)),
    one("no mixer", changed("run/metrics.json", "mixer"), allowed=(OK, REFUSED)),
    one("provenance without versions", changed("run/provenance.json", "versions")),
    one("versions as text", changed("run/provenance.json", "versions", "1.0")),
    one("provenance without data", changed("run/provenance.json", "data")),
    one("fingerprint that is a list", changed("run/provenance.json", "data.fingerprint", [1]), allowed=(OK, REFUSED)),
    one("a number of test images that is a word", changed("run/metrics.json", "test/n", "x")),
    one("config.yaml with a bomb", put("run/config.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)))),
    one("config.yaml with a Python tag", put("run/config.yaml", "a: !!python/object/apply:os.mkdir [pwned]\n")),
    one("config.yaml with an interpolation of nothing", put("run/config.yaml", "seed: ${nothing}\n"), allowed=(OK, REFUSED)),
    one("config.yaml with keys that are numbers", put("run/config.yaml", "1: 2\nseed: 0\n"), allowed=(OK, REFUSED)),
    one("config.yaml with a key of two kinds", put("run/config.yaml", "seed: 0\n1: a\nb: {2: c, d: e}\n"), allowed=(OK, REFUSED)),
    one("config.yaml without a seed", put("run/config.yaml", "mode: fit\n")),
    one("config.yaml with a seed in a list", put("run/config.yaml", "seed: [0]\n"), allowed=(OK, REFUSED)),
    one("predictions.npz is binary", put("run/predictions.npz", BINARY), allowed=(OK, REFUSED)),
    one("predictions.npz is empty", put("run/predictions.npz"), allowed=(OK, REFUSED)),
    one("predictions.npz is a folder", remove("run/predictions.npz"), folder("run/predictions.npz"), allowed=(OK, REFUSED)),
    one("predictions.npz without labels", lambda work, _: _archive(work), allowed=(OK, REFUSED)),
    one("two runs with one seed", TWO, words="run other", allowed=(OK, REFUSED)),
    one("one directory given twice", words="run run", allowed=(OK, REFUSED)),
    one("a link to itself among runs", link("all/me", "."), link("all/run", "../run"), words="all", allowed=(OK, REFUSED)),
    one("a classifier and a generator", copy("drawing"), words="run drawing"),
    one("a run that failed", changed("run/metrics.json", "status", "failed"), allowed=(OK, REFUSED)),
    one("seeds of two kinds", TWO, put("other/config.yaml", "seed: x\n"), words="run other --reference mixer=pool",
        allowed=(OK, REFUSED)),
]  # fmt: skip


def _archive(work: Path) -> None:
    import numpy as np

    np.savez(work / "run" / "predictions.npz", nothing=np.zeros(3))
