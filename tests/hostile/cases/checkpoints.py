"""Checkpoints that load, but lack something or hold something else; and files that are none."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import FAILED, OK, REFUSED, Case, Step
from tests.hostile.making import checkpoint, copy, cut, edit, fifo, folder, link, node, put, remove

LAST = "half/checkpoints/last.ckpt"
FIT = f"run.py ckpt={LAST} trainer.max_steps=3"
TEST = f"run.py mode=test ckpt={LAST} hydra.run.dir=outputs/test"
START = f"run.py init={LAST} mixer=pool model.dim=16 model.depth=1 data.batch_size=32 trainer=smoke hydra.run.dir=outputs/fit"
EXPORT = f"-m tasks.export {LAST} model.safetensors"
DRAWN = "drawing/checkpoints/last.ckpt"
SAMPLE = f"run.py mode=sample ckpt={DRAWN} sample.n=2 sample.steps=1 hydra.run.dir=outputs/sample"
COMMANDS = {"fit": FIT, "test": TEST, "init": START, "export": EXPORT}
GOOD = copy("half")
RESUMED = ("half/*",)

# Where a checkpoint is changed, to what (... removes it), and the commands that must refuse it in one line.
_NODES: tuple[tuple[str, Any, str], ...] = (
    ("operator_zoo/config", ..., "fit test init export"),
    ("operator_zoo/data", ..., "fit test export"),
    ("operator_zoo", "text", "test"),
    ("operator_zoo/config", "text", "fit"),
    ("operator_zoo/config/model", [1, 2], "test"),
    ("operator_zoo/config/model/dim", "wide", "test"),
    ("operator_zoo/config/model/dim", 10**9, "test"),
    ("operator_zoo/config/mixer/name", "poool", "test"),
    ("operator_zoo/config/mixer", {"name": "pool", "evil": 1}, "test"),
    ("operator_zoo/config/task", "classification", "test"),
    ("operator_zoo/config/trainer", [], "fit"),
    ("operator_zoo/data", "text", "test export"),
    ("operator_zoo/data/num_classes", ..., "test"),
    ("operator_zoo/data/num_classes", "ten", "test"),
    ("operator_zoo/data/input", [1], "export"),
    ("operator_zoo/data/mean", "x", "export"),
    ("operator_zoo/scores", "text", "fit export"),
    ("operator_zoo/scores", ..., "fit export"),
    ("state_dict", {}, "init"),
    ("state_dict", [1, 2, 3], "test export"),
    ("state_dict", "text", "fit"),
    ("state_dict/model.stem.weight", "text", "fit init export"),
    ("state_dict/model.stem.weight", 3, "test"),
    ("state_dict/model.stem.weight", ..., "init export"),
    ("optimizer_states", ..., "fit"),
    ("optimizer_states", "text", "fit"),
    ("optimizer_states", [{"state": {}, "param_groups": []}], "fit"),
    ("optimizer_states/0/state", "text", "fit"),
    ("lr_schedulers", ..., "fit"),
    ("lr_schedulers", "text", "fit"),
    ("loops", ..., "fit"),
    ("loops", "text", "fit"),
    ("loops/fit_loop", {}, "fit"),
    ("callbacks", "text", "fit"),
    ("callbacks", ..., "fit"),
    ("callbacks/Clock", 5, "fit"),
    ("global_step", "many", "fit"),
    ("global_step", ..., "fit"),
    ("epoch", -1, "fit"),
    ("pytorch-lightning_version", ..., "fit"),
    ("pytorch-lightning_version", "nonsense", "fit"),
)  # fmt: skip


def damaged(where: str, value: Any, command: str) -> Case:
    # Lacking something that only continuing needs may be mended from the checkpoint before: that is success.
    what = "missing" if value is ... else f"is {value!r}"[:40]
    allowed = (
        (OK, FAILED, REFUSED)
        if command == "fit"
        else (OK, REFUSED)
        if where.startswith("operator_zoo/scores")
        else (REFUSED,)
    )
    name = f"{command}: {where.replace('/', '.')} {what}"
    return Case(name, COMMANDS[command], (GOOD, checkpoint(LAST, node(where, value))), allowed,
                changes=RESUMED if command == "fit" else (), moves=RESUMED, seconds=200)  # fmt: skip


def _whole(name: str, change: Callable[[dict[str, Any]], Any]) -> Case:
    return Case(name, TEST, (GOOD, checkpoint(LAST, change)))


class _Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, ("pwned",)


def _bomb(path: str) -> Step:
    """A zip file whose record says that it is far larger than memory."""

    def step(work: Path, _: Any) -> None:
        with zipfile.ZipFile(work / path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("archive/data.pkl", bytes(300_000_000))

    return step


def _not_finite(content: dict[str, Any]) -> None:
    content["state_dict"]["model.stem.weight"].fill_(float("nan"))


CASES = [
    *(damaged(where, value, command) for where, value, commands in _NODES for command in commands.split()),
    _whole("a list", lambda content: [content]),
    _whole("a number", lambda content: 5),
    _whole("weights alone", lambda content: content["state_dict"]),
    Case("weights that are not finite", TEST, (GOOD, checkpoint(LAST, _not_finite)), (OK, FAILED, REFUSED)),
    Case("an empty file", TEST, (GOOD, put(LAST))),
    Case("random bytes", TEST, (GOOD, put(LAST, bytes(range(256)) * 100))),
    Case("a text", TEST, (GOOD, put(LAST, "version https://git-lfs.github.com/spec/v1\n"))),
    Case("a pickle that acts", TEST, (GOOD, put(LAST, pickle.dumps(_Evil())))),
    Case("a zip bomb", TEST, (GOOD, _bomb(LAST))),
    Case("a zip of something else", TEST, (GOOD, lambda work, _: zipfile.ZipFile(work / LAST, "w").close())),
    Case("a pipe", TEST, (GOOD, remove(LAST), fifo(LAST))),
    Case("a dangling link", TEST, (GOOD, remove(LAST), link(LAST, "/nowhere"))),
    Case("a link to itself", TEST, (GOOD, remove(LAST), link(LAST, "last.ckpt"))),
    Case("a safetensors file", f"run.py mode=test ckpt={LAST}", (GOOD, copy("model.safetensors"),
         lambda work, _: (work / LAST).write_bytes((work / "model.safetensors").read_bytes()))),
    *(Case(f"test: cut at {share:.0%}", TEST, (GOOD, cut(LAST, share))) for share in (0.9,)),
    Case("test: a byte changed", TEST, (GOOD, edit(LAST, lambda content: content[:5000] + b"\xff\x00\xff" + content[5003:]))),
    # Continuing: the checkpoint before takes over, or one line; nothing good is lost.
    Case("fit: cut, with one before", FIT, (copy("run", "half"), cut(LAST, 0.5)), (OK, REFUSED), changes=RESUMED, moves=RESUMED),
    Case("fit: both cut", FIT, (copy("run", "half"), cut(LAST, 0.5), cut("half/checkpoints/previous.ckpt", 0.5))),
    Case("fit: a folder in its place", FIT, (GOOD, remove(LAST), folder(LAST)), (OK, REFUSED), changes=RESUMED, moves=RESUMED),
    Case("fit: config.yaml is binary", FIT, (GOOD, put("half/config.yaml", bytes(range(256)))), (OK, REFUSED), changes=RESUMED),
    Case("fit: metrics.json is a folder", FIT, (GOOD, remove("half/metrics.json"), folder("half/metrics.json")), (OK, REFUSED), changes=RESUMED),
    Case("fit: of a finished run", "run.py ckpt=run/checkpoints/last.ckpt", (copy("run"),), (OK, REFUSED), changes=("run/*",)),
    Case("fit: moved out of its run", "run.py ckpt=x.ckpt", (GOOD, lambda work, _: (work / LAST).rename(work / "x.ckpt")),
         (OK, FAILED, REFUSED), changes=("*",), moves=("x.ckpt",)),
    Case("sample from a classifier", f"run.py mode=sample ckpt={LAST}", (GOOD,)),
    Case("sample: no sample node", SAMPLE, (copy("drawing"), checkpoint(DRAWN, node("operator_zoo/config/sample")))),
    Case("sample: autoencoder that is a number", SAMPLE, (copy("drawing"), checkpoint(DRAWN, node("operator_zoo/autoencoder", 5)))),
    Case("sample: guidance 1e38", f"{SAMPLE} sample.guidance=1e38", (copy("drawing"),), (OK, FAILED, REFUSED)),
    Case("sample: trillions", f"{SAMPLE} sample.n=1000000000000".replace("sample.n=2 ", ""), (copy("drawing"),)),
    Case("test: at no resolution", f"{TEST} data.resolution=[]", (GOOD,)),
    Case("test: at a resolution of words", f"{TEST} data.resolution=[28,large]", (GOOD,)),
    Case("test: at a resolution that does not divide", f"{TEST} data.resolution=[28,29]", (GOOD,)),
    Case("test: at 100,000 pixels", f"{TEST} data.resolution=[28,100000]", (GOOD,), (REFUSED,)),
    Case("test: zero batches", f"{TEST} trainer.limit_test_batches=0", (GOOD,)),
]  # fmt: skip
