"""The initialisation contract: a parameter's bits depend on the seed and its name, and on nothing else."""

from __future__ import annotations

import pytest
import torch

import models
import operators
from operators import InputError
from operators.testing.cases import shells
from operators.testing.checks import assert_close
from tests.mixers import every_mixer

SIZE = {"image_size": (16, 16), "in_channels": 3, "num_classes": 5}


def vit(mixer: str = "attention", **options: object) -> models.VisionTransformer:
    spec = models.MixerSpec(mixer)
    return models.create("vit_nano", mixers=spec, **{**SIZE, "dim": 32, "depth": 3, "positions": "learned", **options})


def trunk(model: models.VisionTransformer) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if ".mixer." not in name}


@pytest.mark.parametrize("mixer", operators.names())
def test_the_trunk_is_the_same_whatever_the_mixer(mixer: str) -> None:
    expected, actual = trunk(vit("identity")), trunk(vit(mixer))
    assert len(expected) == 2 + 1 + 3 * 8 + 2 + 2
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name


@pytest.mark.parametrize(("mixer", "shell"), [(name, shell) for name in operators.names() for shell in shells(name)])
def test_every_mixer_keeps_its_own_initialisation(mixer: str, shell: str | operators.ShellSpec) -> None:
    spec = models.MixerSpec(mixer, shell=shell)
    model = models.create("vit_nano", mixers=spec, **SIZE, dim=32, depth=3)
    for index, built in enumerate(model.mixers):
        with models.seeded(0, f"blocks.{index}.mixer"):
            alone = operators.create(mixer, 32, grid=(4, 4), shell=shell)
        assert built.state_dict().keys() == alone.state_dict().keys()
        for name, value in alone.state_dict().items():
            assert torch.equal(value, built.state_dict()[name]), f"block {index}: {name}"


def test_a_trunk_that_initialises_its_mixers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(model: torch.nn.Module, seed: int) -> None:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)

    monkeypatch.setattr("models.isotropic.vit.initialise", overwrite)
    with pytest.raises(AssertionError, match="block 0: "):
        test_every_mixer_keeps_its_own_initialisation("pom", "common")


def test_depth_leaves_the_first_blocks_as_they_are() -> None:
    shallow, deep = vit(depth=2).state_dict(), vit(depth=4).state_dict()
    assert any(name.startswith("blocks.1.mixer.") for name in shallow)
    for name, value in shallow.items():
        assert torch.equal(value, deep[name]), name


def test_the_seed_and_the_name_matter() -> None:
    first, second = vit(seed=0).state_dict(), vit(seed=1).state_dict()
    drawn = {name for name, value in first.items() if value.numel() > 1 and (value != value.flatten()[0]).any()}
    assert {"stem.weight", "positions.table", "head.weight", "blocks.2.ffn.down.weight"} <= drawn
    for name in drawn:
        assert not torch.equal(first[name], second[name]), name
    assert not torch.equal(first["blocks.0.ffn.up.weight"], first["blocks.1.ffn.up.weight"])
    assert not torch.equal(first["blocks.0.mixer.shell.in_proj.weight"], first["blocks.1.mixer.shell.in_proj.weight"])


def test_construction_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = vit()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for name, value in vit().state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name


def test_distributions() -> None:
    model = vit(dim=128)
    weight = model.blocks[0].get_submodule("ffn.up").weight
    std = (3 * 128) ** -0.5  # fan-in 128
    uncut = std / 0.8796  # a normal cut at two deviations keeps 0.8796 of the deviation (closed form)
    assert_close(weight.std(), torch.tensor(std), 0.01, "deviation")
    assert weight.abs().max() <= 2 * uncut
    assert (weight.abs() > 1.95 * uncut).any()
    assert abs(weight.mean()) < 4 * std / weight.numel() ** 0.5
    # Of a cut normal, P(|z| < 1) = 0.6827 / 0.9545.
    assert_close((weight.abs() < uncut).float().mean(), torch.tensor(0.6827 / 0.9545), 0.01, "inner mass")
    for name, value in trunk(model).items():
        if name.endswith("bias"):
            assert (value == 0).all(), name
        elif "norm" in name:
            assert (value == 1).all(), name
        else:
            expected = 0.02 if "position" in name else (3 * value.shape[-1]) ** -0.5
            assert 0.9 < value.std() / expected < 1.1, name


def test_seeded_restores_the_generator_after_an_error_too() -> None:
    before = torch.get_rng_state()
    with pytest.raises(InputError), models.seeded(0, "x"):
        operators.create("conv", 8, kernel=2 * int(torch.randint(1, 9, ())))
    assert torch.equal(torch.get_rng_state(), before)


PINNED = [-0.0985281, -0.03732461, -0.03859867]


def test_streams_are_pinned() -> None:
    # Fixed values: another stream for the same seed would silently unpair every run from those made before.
    with models.seeded(3, "blocks.0.mixer"):
        assert torch.randint(1_000_000, (3,)).tolist() == [585199, 908005, 963766]
    assert_close(vit(seed=3).head.weight[0, :3], torch.tensor(PINNED), 1e-5, "head")


def test_the_name_of_a_stream_matters() -> None:
    draws = []
    for seed, name in ((0, "a"), (0, "b"), (1, "a"), (10, "a"), (1, "0/a")):
        with models.seeded(seed, name):
            draws.append(torch.rand(()).item())
    assert len(set(draws)) == 5


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match=f"seed={seed} must be an integer >= 0"):
        vit(seed=seed)


@pytest.mark.parametrize("mixer", every_mixer())
def test_the_meta_device(mixer: str) -> None:
    with torch.device("meta"):
        model = vit(mixer, positions="sincos")
        logits = model(torch.empty(2, 3, 16, 16))
    assert all(value.is_meta for value in model.state_dict().values())
    assert logits.shape == (2, 5)
    assert model.cost() == vit(mixer, positions="sincos").cost()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_construction_on_a_gpu_leaves_its_generator_alone_and_gives_the_same_trunk() -> None:
    before = torch.cuda.get_rng_state()
    with torch.device("cuda"):
        first, second = vit(), vit()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for name, value in trunk(vit()).items():
        assert torch.equal(value, trunk(first)[name].cpu()), name
