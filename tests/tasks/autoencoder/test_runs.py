"""Runs, plans and exports are of the latents, and a checkpoint knows the autoencoder that it has learned with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks.data
from operators import InputError
from tasks import autoencoder
from tasks.config.composition import compose, read
from tasks.export import describe, export, load
from tasks.planning.plan import make as make_plan
from tasks.run.execute import execute
from tasks.system import checkpoint
from tests.tasks.autoencoder.conftest import CHANNELS
from tests.tasks.run.test_execute import Kill, timeless, weights


def test_fit_test_and_sample(
    kind: str, folders: dict[str, str], overrides: Callable[[str], list[str]], tmp_path: Path
) -> None:
    moved = str(shutil.copytree(folders[kind], tmp_path / "autoencoder"))
    metrics = execute(compose(overrides(moved)), tmp_path / "run")
    assert metrics["status"] == "ok"
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content, coder = checkpoint.load(best), autoencoder.load(moved)
    assert content[checkpoint.KEY]["autoencoder"] == coder.fingerprint
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["autoencoder"] == coder.fingerprint
    assert all(name.startswith("model.") for name in content["state_dict"])
    assert content["state_dict"]["model.stem.weight"].shape[1] == CHANNELS[kind] * 4
    with np.load(tmp_path / "run" / "samples" / "samples.npz") as kept:
        drawn = kept["arr_0"]
    assert drawn.shape == (3, 16, 16, 3)

    # The folder has moved since.
    shutil.rmtree(moved)
    there = [f"ckpt={best}", f"task.autoencoder={folders[kind]}", "logger=none"]
    again = execute(compose(["mode=test", *there]), tmp_path / "test")
    assert again["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert execute(compose(["mode=sample", "sample.n=3", *there]), tmp_path / "sample")["status"] == "ok"
    with np.load(tmp_path / "sample" / "samples" / "samples.npz") as kept:
        assert np.array_equal(kept["arr_0"], drawn)


def test_a_continued_run_ends_bit_for_bit_as_an_undisturbed_one(
    folders: dict[str, str], overrides: Callable[[str], list[str]], tmp_path: Path
) -> None:
    more = ["trainer.max_steps=null", "trainer.max_epochs=2", "trainer.ema=0.9", "trainer.test=false"]
    given = [*overrides(folders["kl"]), *more]
    whole = execute(compose(given), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        execute(compose(given), tmp_path / "cut", callbacks=[Kill(4)])
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    continued = execute(compose([*given, f"ckpt={last}"]), tmp_path / "cut")
    assert timeless(continued) == timeless(whole)
    one, other = weights(tmp_path / "whole" / "checkpoints" / "last.ckpt"), weights(last)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_autoencoder_is_refused(
    folders: dict[str, str], overrides: Callable[[str], list[str]], tmp_path: Path
) -> None:
    for name, path in (("latents", folders["kl"]), ("pixels", "null")):
        execute(compose([*overrides(path), "trainer.test=false"]), tmp_path / name)
    for name, path, message in (
        ("latents", folders["other"], "which has learned with another, of fingerprint"),
        ("latents", "null", "task.autoencoder=None is not the checkpoint's, which has learned with another"),
        ("pixels", folders["kl"], "is not the checkpoint's, which has learned on pixels"),
    ):
        for mode in ("test", "sample"):
            ckpt = tmp_path / name / "checkpoints" / "best.ckpt"
            config = compose([f"mode={mode}", f"ckpt={ckpt}", f"task.autoencoder={path}"])
            with pytest.raises(InputError, match=message):
                execute(config, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_plans_and_budgets_are_of_the_latents(folders: dict[str, str]) -> None:
    latents = ["experiment=imagenet_generation", "mixer=attention", "shell=published", "trainer.accelerator=cpu"]
    # Stable Diffusion's autoencoder is not here; the one called random makes latents of the same shape.
    planned = ["mode=plan", "plan.peak_tflops=1", "data.batch_size=2", "model=dit_xl", "model.depth=1"]
    pixels = ["task=generation", "data=imagenet", "data.resolution=256", "mixer=attention", "shell=published", *planned]
    facts = make_plan(read([*latents, *planned, "task.autoencoder=random"]))
    assert facts["input"] == [4, 32, 32]
    assert any("autoencoder" in note for note in facts["notes"])
    assert facts["macs"] < make_plan(read([*pixels, "trainer.accelerator=cpu"]))["macs"] / 32
    run = read([*latents, f"task.autoencoder={folders['kl']}", "model=dit_nano", "model.match={macs: 200M}"])
    images = run.images(tasks.data.describe(**run.data))
    assert images.input == autoencoder.load(folders["kl"]).geometry.shape(3, 256, 256)
    assert run.build(images).cost().macs == pytest.approx(200e6, rel=0.02)


def test_an_exported_generator_takes_latents(
    folders: dict[str, str], overrides: Callable[[str], list[str]], tmp_path: Path
) -> None:
    execute(compose([*overrides(folders["kl"]), "trainer.test=false"]), tmp_path / "run")
    export(tmp_path / "run" / "checkpoints" / "best.ckpt", tmp_path / "model.safetensors")
    shape = describe(tmp_path / "model.safetensors")["data"]["input"]
    assert shape[0] == CHANNELS["kl"]
    x = torch.randn(2, *shape)
    assert load(tmp_path / "model.safetensors")(x, torch.rand(2), torch.zeros(2, dtype=torch.int64)).shape == x.shape
