"""Latents are those of `diffusers`, and a generator draws them by seed, epoch and image."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

import models
from models import MixerSpec
from operators.testing.checks import assert_close, assert_differs
from tasks import autoencoder
from tasks.config.task import GenerationConfig, SampleConfig
from tasks.config.training import OptimizerConfig
from tasks.generation import Generation
from tests.tasks.autoencoder.conftest import CHANNELS, images, make


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
