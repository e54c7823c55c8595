"""Latents: `diffusers`' autoencoders, what they do to a generator, and what a checkpoint knows of them."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import models
import tasks.data
from models import MixerSpec
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tasks import autoencoder
from tasks.config.composition import compose, read
from tasks.config.task import GenerationConfig, SampleConfig
from tasks.config.training import OptimizerConfig
from tasks.export import describe, export, load
from tasks.generation import Generation
from tasks.planning.plan import make as make_plan
from tasks.run.execute import execute
from tasks.system import checkpoint
from tests.tasks.data.photographs import write_folder
from tests.tasks.run.test_execute import Kill, timeless, weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
KINDS = ("kl", "tiny")
CHANNELS = {"kl": 3, "tiny": 5}


def make(kind: str, seed: int = 0, **config: Any) -> Any:
    """Reduces images by 4; scaled and shifted."""
    torch.manual_seed(seed)
    if kind == "tiny":
        widths, blocks = (8, 8, 8), (1, 1, 1)
        return diffusers.AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
            latent_channels=CHANNELS[kind],
            **{"scaling_factor": 1.5, **config},
        )
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        latent_channels=CHANNELS[kind],
        **{"scaling_factor": 0.7, "shift_factor": 0.2, **config},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("autoencoders")
    for kind in KINDS:
        make(kind).save_pretrained(root / kind)
    make("kl", seed=1).save_pretrained(root / "other")
    return {name: str(root / name) for name in (*KINDS, "other")}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def images(count: int = 5, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def task(coder: autoencoder.Autoencoder, seed: int = 0) -> Generation:
    channels, height, width = coder.geometry.shape(3, 16, 16)
    model = models.create(
        "dit_nano",
        mixers=MixerSpec("pool"),
        image_size=(height, width),
        in_channels=channels,
        num_classes=3,
        dim=16,
        depth=1,
        patch=2,
    )
    assert isinstance(model, models.DiffusionTransformer)
    return Generation(
        model,
        task=GenerationConfig(),
        sample=SampleConfig(),
        channels=3,
        image_size=(16, 16),
        autoencoder=coder,
        optimizer=OptimizerConfig(),
        seed=seed,
    )


def batch(count: int = 5, epoch: int = 0) -> dict[str, Tensor]:
    index = torch.arange(count)
    return {
        "image": images(count, 16, 16),
        "label": index % 3,
        "index": index,
        "epoch": torch.full_like(index, epoch),
    }


# ---------------------------------------------------------------- encoding and decoding


@torch.no_grad()
def test_latents_are_those_of_diffusers_scaled_by_its_configuration(kind: str, folders: dict[str, str]) -> None:
    coder, net, x = autoencoder.load(folders[kind]), make(kind).eval(), images()
    assert coder.geometry.shape(3, 16, 24) == (CHANNELS[kind], 4, 6)
    latents = coder.encode(x)
    assert latents.shape == (5, CHANNELS[kind], 4, 6)
    assert coder.stochastic == (kind == "kl")
    if kind == "kl":
        found = net.encode(x).latent_dist
        eps = torch.randn(latents.shape)
        assert_close(latents, (found.mean - 0.2) * 0.7, 1e-6, "mean")
        assert_close(coder.encode(x, eps), (found.mean + found.std * eps - 0.2) * 0.7, 1e-6, "sample")
        assert_close(coder.decode(latents), net.decode(latents / 0.7 + 0.2).sample, 1e-6, "image")
    else:
        assert_close(latents, net.encode(x).latents * 1.5, 1e-6, "latents")
        assert_close(coder.decode(latents), net.decode(latents / 1.5).sample, 1e-6, "image")
    assert coder.decode(latents).shape == x.shape


def test_an_image_does_not_know_its_batch(kind: str, folders: dict[str, str]) -> None:
    coder, x = autoencoder.load(folders[kind]), images(autoencoder._CHUNK + 2)
    eps = torch.randn(len(x), *coder.geometry.shape(3, 16, 24)) if coder.stochastic else None
    whole = coder.encode(x, eps)
    alone = [coder.encode(x[i : i + 1], None if eps is None else eps[i : i + 1]) for i in range(len(x))]
    assert_close(torch.cat(alone), whole, 1e-5, "latents one by one")
    assert_close(torch.cat([coder.decode(z) for z in whole.split(1)]), coder.decode(whole), 1e-5, "images one by one")


def test_float32_whatever_the_autocast_and_no_gradient(kind: str, folders: dict[str, str]) -> None:
    coder, x = autoencoder.load(folders[kind]), images()
    plain = coder.encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(coder.encode(x.requires_grad_()), plain)
        assert torch.equal(coder.decode(plain.bfloat16().double()), coder.decode(plain.bfloat16()))
    assert not plain.requires_grad
    assert plain.dtype == coder.decode(plain).dtype == torch.float32


def test_random_is_the_same_every_time_and_shaped_like_stable_diffusions() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = autoencoder.load("random")
    assert torch.equal(torch.get_rng_state(), before)
    assert one.geometry.shape(3, 256, 256) == (4, 32, 32)
    assert one.fingerprint == autoencoder.load("random").fingerprint
    assert torch.isfinite(one.decode(one.encode(images(2, 64, 64)))).all()


def test_fingerprint_sees_weights_and_scaling(folders: dict[str, str]) -> None:
    same = autoencoder.Autoencoder(make("kl")).fingerprint
    assert autoencoder.load(folders["kl"]).fingerprint == same
    changed = make("kl")
    with torch.no_grad():
        changed.decoder.conv_out.bias[0] += 1e-3
    others = [autoencoder.Autoencoder(net).fingerprint for net in (changed, make("kl", scaling_factor=0.71))]
    assert len({same, *others, autoencoder.load(folders["other"]).fingerprint}) == 4


# ---------------------------------------------------------------- in a task


def test_encodings_belong_to_seed_epoch_and_image(kind: str, folders: dict[str, str]) -> None:
    coder = autoencoder.load(folders[kind])
    module, rows = task(coder), batch()
    whole = module.targets(rows, "flow")
    part = module.targets({name: value[3:4] for name, value in rows.items()}, "flow")
    assert_close(part, whole[3:4], 1e-5, "latents of one image")
    assert torch.equal(task(coder).targets(rows, "flow"), whole)
    for name, other in (
        ("epoch", module.targets(batch(epoch=1), "flow")),
        ("split", module.targets(rows, "val")),
        ("seed", task(coder, seed=1).targets(rows, "flow")),
    ):
        if coder.stochastic:
            assert_differs(other, whole, 1e-3, f"latents of another {name}")
        else:
            assert torch.equal(other, whole), name


def test_a_task_does_not_own_its_autoencoder(kind: str, folders: dict[str, str]) -> None:
    coder = autoencoder.load(folders[kind])
    module = task(coder)
    assert all(name.startswith("model.") for name in module.state_dict())
    assert all(name.startswith("model.") for name, _ in module.named_parameters())
    assert copy.deepcopy(module).autoencoder is coder
    module.losses(batch(), "flow", "uniform", 0.1)[0].mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in coder._net.parameters())


def test_samples_are_decoded(kind: str, folders: dict[str, str]) -> None:
    coder = autoencoder.load(folders[kind])
    module = task(coder)
    x = module.draw(np.arange(3), torch.arange(3), 2).x1
    assert x.shape == (3, CHANNELS[kind], 4, 4)
    expected = ((coder.decode(x).clamp(-1, 1) + 1) * 127.5).round()
    assert torch.equal(module.pixels(x), expected.to(torch.uint8))


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("photographs"), {"train": 6, "val": 2, "test": 2})


@pytest.fixture
def overrides(photographs: Path) -> Callable[[str], list[str]]:
    def given(path: str) -> list[str]:
        data = ["data=image_folder", f"data.root={photographs}", "data.resolution=16", "data.batch_size=6"]
        model = ["mixer=pool", "model.dim=16", "model.depth=1", "model.patch=2", "sample.n=3"]
        common = ["trainer=smoke", "trainer.accelerator=cpu", "logger=none"]
        return ["task=generation", f"task.autoencoder={path}", *data, *model, *common]

    return given


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


# ---------------------------------------------------------------- refusals


def refusal(function: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refused_images(folders: dict[str, str], overrides: Callable[[str], list[str]], tmp_path: Path) -> None:
    coder = autoencoder.load(folders["kl"])
    assert "encodes images of 3 channels, not of 1" in refusal(lambda: coder.geometry.shape(1, 28, 28))
    config = compose([*overrides(folders["kl"]), "data.resolution=18"])
    line = refusal(lambda: execute(config, tmp_path / "run"))
    assert "data.resolution=18 must be a multiple of 4" in line
    assert "try 16" in line


def test_refused_folders(tmp_path: Path, folders: dict[str, str]) -> None:
    assert "is no folder, no Hub id such as" in refusal(lambda: autoencoder.load("/nowhere/at/all"))
    assert "lacks config.json" in refusal(lambda: autoencoder.load(str(tmp_path)))
    damaged = shutil.copytree(folders["kl"], tmp_path / "damaged")
    file, config = damaged / "diffusion_pytorch_model.safetensors", damaged / "config.json"
    text = json.loads(config.read_text())
    config.write_text(json.dumps({**text, "_class_name": "UNet2DModel"}))
    line = refusal(lambda: autoencoder.load(str(damaged)))
    assert "holds UNet2DModel: allowed are AutoencoderKL, AutoencoderTiny" in line
    for change in ({"block_out_channels": [4, 4, 6]}, {"layers_per_block": 2}, {"layers_per_block": 0}):
        config.write_text(json.dumps({**text, **change}))
        assert "cannot be read as AutoencoderKL" in refusal(lambda: autoencoder.load(str(damaged))), change
    config.write_text(json.dumps(text))
    file.write_bytes(file.read_bytes()[:1000])
    assert str(damaged) in refusal(lambda: autoencoder.load(str(damaged)))
    file.unlink()
    assert "lacks config.json or safetensors" in refusal(lambda: autoencoder.load(str(damaged)))
    config.write_text("{")
    assert "lacks config.json" in refusal(lambda: autoencoder.load(str(damaged)))


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    line = refusal(lambda: autoencoder.load("nobody/has-this"))
    assert "nobody/has-this is no folder here, and could not be fetched from the Hugging Face Hub" in line
    assert "give a folder" in line


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert 'pip install "operator-zoo[latents]"' in refusal(lambda: autoencoder.load("random"))


@pytest.mark.parametrize("value", ["3", "[a]"])
def test_refused_values(value: str) -> None:
    line = refusal(lambda: compose(["task=generation", f"task.autoencoder={value}"]))
    assert "must be a folder, a Hub id, random or null" in line


# ---------------------------------------------------------------- what else has to know the latents' shape


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
