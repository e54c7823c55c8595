"""Study files, the options of a study, its directory and what lies in it, and reports."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.hostile.case import FAILED, OK, REFUSED, TINY, Case, Step
from tests.hostile.making import checkpoint, copy, cut, fifo, folder, link, node, put, remove
from tests.hostile.store import STUDY, Store

BINARY = bytes(range(256)) * 4
GOOD: dict[str, Any] = yaml.safe_load(STUDY)
BLOCK = GOOD["blocks"][0]
FACTOR = BLOCK["factors"]["size"]
SEARCH: dict[str, Any] = {
    "kind": "tune",
    "objectives": [{"metric": "val/accuracy"}],
    "trials": 1,
    "overrides": list(TINY),
    "space": {"optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}},
}
LAST = "study/trials/00000/checkpoints/last.ckpt"


def told(name: str, change: dict[str, Any], base: dict[str, Any] = GOOD, words: str = "", seconds: float = 150) -> Case:
    """A study file, good but for some keys; `...` leaves one out."""
    content = {key: value for key, value in {**base, **change}.items() if value is not ...}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return Case(name, f"-m ablations study=my.yaml {words}", (put("my.yaml", text),), seconds=seconds)


def block(title: str, /, **change: Any) -> Case:
    return told(title, {"blocks": [{**BLOCK, **change}]})


def factor(title: str, /, **change: Any) -> Case:
    return block(title, factors={"size": {**FACTOR, **change}})


def file(name: str, content: bytes | str) -> Case:
    return Case(name, "-m ablations study=my.yaml", (put("my.yaml", content),))


def option(name: str, words: str, *steps: Step, allowed: tuple[int, ...] = (REFUSED,)) -> Case:
    return Case(name, f"-m ablations study=my.yaml {words}", (put("my.yaml", STUDY), *steps), allowed)


def again(name: str, *steps: Step, allowed: tuple[int, ...] = (OK, FAILED, REFUSED), words: str = "") -> Case:
    """The same study once more, in a directory where something has been damaged; nothing in it may be lost."""
    command = f"-m ablations study=window.yaml study.dir=study study.name=window {words}"
    return Case(name, command, (copy("study"), put("window.yaml", STUDY), *steps), allowed,
                changes=("study/*",), moves=("study/trials/*",), seconds=400, lines=20)  # fmt: skip


def report(name: str, *steps: Step, allowed: tuple[int, ...] = (REFUSED,)) -> Case:
    made = ("study/*.csv", "study/*.html", "study/*.new", "study/summary.json", "study/table.*", "study/figures/*")
    return Case(name, "-m ablations.report study", (copy("study"), *steps), allowed, changes=made)


def row(change: dict[str, str]) -> Step:
    """The first row of trials.csv with some cells replaced."""

    def step(work: Path, _: Store) -> None:
        path = work / "study" / "trials.csv"
        head, first, *rest = path.read_text().splitlines()
        cells = dict(zip(head.split(","), first.split(","), strict=False)) | change
        path.write_text("\n".join([head, ",".join(cells.values()), *rest]) + "\n")

    return step


CASES = [
    # the command line
    Case("no study", "-m ablations study.seeds=2"),
    Case("a study that is not there", "-m ablations study=my.yaml"),
    Case("a flag", "-m ablations study=mixers --dry-run"),
    Case("study given as a folder", "-m ablations study=x.yaml", (folder("x.yaml"),)),
    Case("study given as a pipe", "-m ablations study=x.yaml", (fifo("x.yaml"),)),
    Case("study given as a device", "-m ablations study=/dev/zero"),
    option("unknown option", "study.sedes=3"),
    option("a thousand million seeds", "study.seeds=1000000000"),
    option("seeds in scientific notation", "study.seeds=1e9"),
    option("no seeds", "study.seeds=0"),
    option("other digits", "study.seeds=３", allowed=(REFUSED,)),
    option("a thousand million workers", "study.workers=1000000000"),
    option("trials of a factorial study", "study.trials=5"),
    option("tuning of nothing", "study.tuning=true"),
    option("another trainer's setting", "trainer.max_epoch=1"),
    option("an override that is an arm's factor", "mixer.size=[3"),
    option("a name above its directory", "study.name=../../../../evil"),
    option("an absolute name", "study.name=/evil"),
    option("a name of dots", "study.name=.."),
    option("an empty name", "study.name="),
    option("a name with a newline", "'study.name=a\nb'"),
    option("a name of 300 characters", f"study.name={'x' * 300}"),
    option("a directory in proc", "study.dir=/proc/evil"),
    option("a directory that is a file", "study.dir=my.yaml"),
    option("a directory below a file", "study.dir=my.yaml/x"),
    option("a directory with a NUL's name", f"study.dir={'x' * 300}"),
    option("an environment of strangers", "study.dir=there", put("there/study.yaml", "mine: true\n")),
    # the file
    file("empty", ""),
    file("binary", BINARY),
    file("Latin-1", "question: café\n".encode("latin-1")),
    file("a list", "- a\n- b\n"),
    file("a text", "study"),
    file("tabs", "a:\n\tb: 1\n"),
    file("a Python tag", "question: !!python/object/apply:os.mkdir [pwned]\n"),
    file("a bomb", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))),
    file("an alias of itself", "a: &a [*a]\n"),
    file("nested 10,000 deep", "a: " + "[" * 10_000 + "]" * 10_000),
    file("a key twice", STUDY + "seeds: 3\n"),
    file("two documents", STUDY + "---\nseeds: 3\n"),
    file("an interpolation of nothing", STUDY.replace("seeds: 2", "seeds: ${nothing}")),
    told("no blocks", {"blocks": ...}),
    told("blocks that are a mapping", {"blocks": {"a": 1}}),
    told("blocks of nothing", {"blocks": []}),
    told("two blocks of one name", {"blocks": [BLOCK, BLOCK]}),
    told("no objectives", {"objectives": ...}),
    told("an objective that is a text", {"objectives": ["test/accuracy"]}),
    told("an objective to ascend", {"objectives": [{"metric": "test/accuracy", "direction": "up"}]}),
    told("seeds of 10^9", {"seeds": 10**9}),
    told("seeds as a list", {"seeds": [0, 1]}),
    told("overrides that are a text", {"overrides": "mixer=pool"}),
    told("overrides of mappings", {"overrides": [{"mixer": "pool"}]}),
    told("overrides that run.py refuses", {"overrides": [*TINY, "model.depht=3"]}),
    told("an override of where runs lie", {"overrides": [*TINY, "hydra.run.dir=/tmp/evil"]}),
    told("an override that continues", {"overrides": [*TINY, "ckpt=x.ckpt"]}),
    told("a name above its directory in the file", {"name": "../../../../evil"}),
    told("a kind of nothing", {"kind": "grid"}),
    told("a question that is a list", {"question": [1]}),
    told("tuning without levels", {"tuning": {"key": "optimizer.lr"}}),
    told("tuning by words", {"tuning": {"key": "optimizer.lr", "levels": ["low", "high"]}}),
    told("tuning of a group", {"tuning": {"key": "mixer", "levels": [1.0, 2.0]}}),
    told("tuning extended for ever", {"tuning": {"key": "optimizer.lr", "levels": [1e-3, 2e-3], "extend": 10**9}}),
    block("a block called ..", name=".."),
    block("factors that are a list", factors=[FACTOR]),
    block("a design of nothing", design="latin"),
    block("a fraction of one trial", design="fraction", budget=1),
    block("a control that is no factor", negative_controls=["sise"]),
    block("a reference that is no level", reference={"size": 4}),
    block("an arm without a name", also=[{"overrides": ["mixer=identity"]}]),
    block("60 factors of two levels", factors={f"f{i}": {"key": f"model.x{i}", "levels": [0, 1]} for i in range(60)}),
    factor("one level", levels=[3]),
    factor("levels that are equal", levels=[3, 3]),
    factor("levels that are null", levels=[None, None]),
    factor("levels of mappings", levels=[{"a": 1}, {"b": 2}]),
    factor("levels not finite", levels=[float("nan"), float("inf")]),
    factor("a million levels", levels="registry/nothing"),
    factor("labels too few", labels=["a"]),
    factor("a key with a command", key="mixer.size; rm -rf /"),
    factor("a key of Hydra", key="hydra.run.dir"),
    told("a search without a space", {"space": ...}, SEARCH),
    told("a search of an empty space", {"space": {}}, SEARCH),
    told("a search upside down", {"space": {"optimizer.lr": {"low": 1.0, "high": 0.1}}}, SEARCH),
    told("a search from zero in logarithms", {"space": {"optimizer.lr": {"low": 0, "high": 1, "log": True}}}, SEARCH),
    told("a search of words", {"space": {"optimizer.lr": {"low": "a", "high": "b"}}}, SEARCH),
    told("a search without limits", {"space": {"optimizer.lr": {"low": 0.1, "high": float("inf")}}}, SEARCH),
    told("a search of 10^9 trials", {"trials": 10**9}, SEARCH),
    told("a search with a sampler of nothing", {"sampler": "grid"}, SEARCH),
    # once more, in a damaged directory
    again("again: as it was", allowed=(OK,)),
    again("again: study.yaml is binary", put("study/study.yaml", BINARY)),
    again("again: study.yaml is of another design", lambda work, _: (work / "window.yaml").write_text(
        STUDY.replace("[3, 5]", "[3, 7]")), allowed=(REFUSED,)),
    again("again: trials.csv is gone", remove("study/trials.csv"), allowed=(OK,)),
    again("again: storage is binary", put("study/study.db", BINARY), allowed=(FAILED, REFUSED)),
    again("again: storage is empty", put("study/study.db")),
    again("again: storage is cut", cut("study/study.db", 0.5), allowed=(FAILED, REFUSED)),
    again("again: storage is gone", remove("study/study.db")),
    again("again: storage is gone and a checkpoint cut", remove("study/study.db", "study/trials/00000/metrics.json"),
          cut(LAST, 0.5)),
    again("again: storage is gone and a checkpoint lacks its loops", remove(
        "study/study.db", "study/trials/00000/metrics.json"), checkpoint(LAST, node("loops"))),
    again("again: storage is gone and metrics.json binary", remove("study/study.db"),
          put("study/trials/00000/metrics.json", BINARY)),
    again("again: a checkpoint that cannot be read now", remove("study/study.db", "study/trials/00000/metrics.json", LAST),
          lambda work, _: (work / LAST).symlink_to("/nowhere/last.ckpt")),
    again("again: a trial's directory is a file", remove("study/study.db", "study/trials/00000"),
          put("study/trials/00000", "mine")),
    again("again: a stranger's files where a trial goes", remove("study/study.db", "study/trials/00000"),
          put("study/trials/00000/thesis.tex", "mine")),
    # reports
    report("report: good", allowed=(OK,)),
    Case("report: no argument", "-m ablations.report"),
    Case("report: no study", "-m ablations.report x", (folder("x"),)),
    report("report: no plan", remove("study/study.yaml")),
    report("report: a binary plan", put("study/study.yaml", BINARY)),
    report("report: a plan that is a list", put("study/study.yaml", "- 1\n")),
    report("report: an empty plan", put("study/study.yaml")),
    report("report: a plan without blocks", put("study/study.yaml", "name: x\nkind: factorial\nobjectives: []\n")),
    report("report: no table", remove("study/trials.csv")),
    report("report: a binary table", put("study/trials.csv", BINARY)),
    report("report: an empty table", put("study/trials.csv"), allowed=(OK, REFUSED)),
    report("report: a table of other columns", put("study/trials.csv", "a,b\n1,2\n")),
    report("report: a row cut off", cut("study/trials.csv", 0.6), allowed=(OK, REFUSED)),
    report("report: a number that is a word", row({"number": "first"})),
    report("report: a seed that is a word", row({"seed": "x"})),
    report("report: a state of nothing", row({"state": "happy"})),
    report("report: an accuracy that is a word", row({"test/accuracy": "good"}), allowed=(OK, REFUSED)),
    report("report: a level of nothing", row({"factor/size": "99"}), allowed=(OK, REFUSED)),
    report("report: a run outside the study", row({"run_dir": "../../../../etc"}), allowed=(OK, REFUSED)),
    report("report: metrics.json is binary", put("study/trials/00000/metrics.json", BINARY), allowed=(OK, REFUSED)),
    report("report: metrics.json is a list", put("study/trials/00000/metrics.json", "[]"), allowed=(OK, REFUSED)),
    report("report: metrics.json has texts", put("study/trials/00000/metrics.json", json.dumps(
        {"test/accuracy": "good", "status": "ok"})), allowed=(OK, REFUSED)),
    report("report: provenance.json is binary", put("study/trials/00000/provenance.json", BINARY), allowed=(OK, REFUSED)),
    report("report: provenance.json is a list", put("study/trials/00000/provenance.json", "[]"), allowed=(OK, REFUSED)),
    report("report: provenance.json is empty of facts", put("study/trials/00000/provenance.json", "{}"), allowed=(OK, REFUSED)),
    report("report: predictions.npz is binary", put("study/trials/00000/predictions.npz", BINARY), allowed=(OK, REFUSED)),
    report("report: config.yaml is binary", put("study/trials/00000/config.yaml", BINARY), allowed=(OK, REFUSED)),
    report("report: a page that is a folder", remove("study/report.html"), folder("study/report.html"), allowed=(FAILED, REFUSED)),
    report("report: figures that are a file", remove("study/figures"), put("study/figures", "x"), allowed=(FAILED, REFUSED)),
    report("report: trials that are gone", remove("study/trials"), allowed=(OK, REFUSED)),
    report("report: a link to itself", remove("study/trials/00000/metrics.json"),
           link("study/trials/00000/metrics.json", "metrics.json"), allowed=(OK, REFUSED)),
]  # fmt: skip
