"""Exporting weights, and reading files that say they are exported."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.hostile.case import FAILED, OK, REFUSED, Case, Step
from tests.hostile.making import copy, cut, edit, fifo, folder, link, put, remove
from tests.hostile.store import Store

RUN = copy("run")
BEST = "run/checkpoints/best.ckpt"
# What a program that uses the library does with wrong input.
_READER = (
    "-c '\n"
    "import sys\n"
    "from operators.errors import InputError\n"
    "from tasks import export\n"
    "try:\n"
    "    export.load(sys.argv[1])\n"
    "except InputError as error:\n"
    "    sys.exit(str(error))\n"
    "' model.safetensors"
)
FILE = "model.safetensors"


def export(
    name: str, command: str, *steps: Step, allowed: tuple[int, ...] = (REFUSED,), changes: tuple[str, ...] = ()
) -> Case:
    return Case(name, f"-m tasks.export {command}", (RUN, *steps), allowed, changes=changes)


def reading(name: str, *steps: Step, allowed: tuple[int, ...] = (FAILED,)) -> Case:
    """`load` must say in an `InputError` what is wrong; the reader exits with 1."""
    return Case(name, _READER, (copy("model.safetensors"), *steps), allowed)


def header(change: dict[str, object], *, entry: str = "operator_zoo") -> Step:
    """The header's JSON of the project, with some keys replaced."""

    def step(work: Path, _: Store) -> None:
        content = (work / FILE).read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        head = json.loads(content[8 : 8 + size])
        recorded = {**json.loads(head["__metadata__"]["operator_zoo"]), **change}
        head["__metadata__"] = {entry: json.dumps(recorded)}
        text = json.dumps(head).encode()
        (work / FILE).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

    return step


def mode(work: Path) -> str:
    """That others may read the file as they may any other."""
    probe = work / "probe"
    probe.touch()
    given, usual = (work / "new.safetensors").stat().st_mode, probe.stat().st_mode
    return "" if given == usual else f"the export has mode {given:o}, other files {usual:o}"


CASES = [
    Case("no arguments", "-m tasks.export"),
    Case("three arguments", "-m tasks.export a b c"),
    Case("a flag", "-m tasks.export --format onnx"),
    Case("ordinary mode", f"-m tasks.export {BEST} new.safetensors", (RUN,), (OK,), check=mode),
    export("as ONNX", f"{BEST} model.onnx"),
    export("as a pickle", f"{BEST} model.pt"),
    export("without a suffix", f"{BEST} model"),
    export("onto the checkpoint", f"{BEST} {BEST}"),
    export("onto a file that is there", f"{BEST} there.safetensors", put("there.safetensors", "mine")),
    export("onto a folder", f"{BEST} there.safetensors", folder("there.safetensors")),
    export("onto a dangling link", f"{BEST} there.safetensors", link("there.safetensors", "/nowhere/x"), allowed=(OK, REFUSED),
           changes=("there.safetensors",)),
    export("onto a device", f"{BEST} /dev/full"),
    export("into proc", f"{BEST} /proc/x.safetensors"),
    export("into a folder that is not there", f"{BEST} nowhere/x.safetensors"),
    export("under a name of 300 characters", f"{BEST} {'x' * 300}.safetensors"),
    export("of a folder", "run x.safetensors"),
    export("of config.yaml", "run/config.yaml x.safetensors"),
    export("of an exported file", f"{FILE} x.safetensors", copy("model.safetensors")),
    export("of a pipe", "pipe.ckpt x.safetensors", fifo("pipe.ckpt")),
    Case("on a disk that is full", f"-m tasks.export {BEST} x.safetensors", (RUN,), (FAILED, REFUSED), limits=("fsize=1000",)),
    reading("read: good", allowed=(OK,)),
    reading("read: not there", remove(FILE)),
    reading("read: cut off", cut(FILE, 0.5)),
    reading("read: empty", put(FILE)),
    reading("read: a header of 2^60 bytes", edit(FILE, lambda content: struct.pack("<Q", 2**60) + content[8:])),
    reading("read: another program's", header({}, entry="format")),
    reading("read: a later version", header({"version": 99})),
    reading("read: version as a list", header({"version": [1]})),
    reading("read: without a configuration", header({"config": None})),
    reading("read: configuration as text", header({"config": "text"})),
    reading("read: data as a list", header({"data": [1]})),
    reading("read: input of one number", header({"data": {"input": [1], "num_classes": 10}})),
    reading("read: input of words", header({"data": {"input": ["a", "b", "c"], "num_classes": 10}})),
    reading("read: classes without end", header({"data": {"input": [1, 28, 28], "num_classes": 10**12}})),
]  # fmt: skip
