"""The classifier as a whole, with every mixer of the registry."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import models
import operators
from models import MixerSpec
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from operators.testing.counter import count_macs
from tests.mixers import every_mixer

SIZE = {"image_size": (16, 24), "in_channels": 3, "num_classes": 5}
HYBRID = [
    MixerSpec("conv", {"kernel": 3}),
    MixerSpec("attention", {"heads": 2}, shell="published"),
    MixerSpec("identity"),
]


def vit(mixers: object = "attention", **options: object) -> models.VisionTransformer:
    spec = MixerSpec(mixers) if isinstance(mixers, str) else mixers
    return models.create("vit_nano", mixers=spec, **{**SIZE, "dim": 32, "depth": 2, "positions": "sincos", **options})


@pytest.mark.parametrize("mixer", operators.names())
@pytest.mark.parametrize("options", [{}, {"hidden": 0, "norm": "rms", "positions": "learned"}], ids=["ffn", "bare"])
def test_every_mixer_learns_with_every_parameter(mixer: str, options: dict[str, object]) -> None:
    model = vit(mixer, **options)
    images = torch.randn(4, 3, 16, 24)
    logits = model(images)
    assert logits.shape == (4, 5)
    F.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert torch.isfinite(parameter.grad).all(), f"{name} has a gradient that is not finite"
    still = {name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()}
    assert not {name for name in still if ".mixer." not in name}, still
    assert model(images).shape == (4, 5)


@pytest.mark.parametrize("mixer", every_mixer(but=operators.names(fixed_grid=True)))
@pytest.mark.parametrize("positions", ["sincos", "learned", "none"])
def test_other_resolutions(mixer: str, positions: str) -> None:
    model = vit(mixer, positions=positions).eval()
    with torch.no_grad():
        for height, width in ((32, 48), (28, 20), (36, 36), (12, 60)):
            images = torch.randn(2, 3, height, width)
            features = model.features(images)
            assert features.shape == (2, height // 4, width // 4, 32)
            assert torch.isfinite(features).all()
            assert_close(model(images), model.head(features.mean((1, 2))), 1e-6, f"{height}×{width}")


@pytest.mark.parametrize("mixer", operators.names())
def test_images_of_a_batch_do_not_see_each_other(mixer: str) -> None:
    model = vit(mixer).eval()
    images = torch.randn(3, 3, 16, 24)
    with torch.no_grad():
        together = model(images)
        apart = torch.cat([model(image[None]) for image in images])
    assert_close(together, apart, 1e-4, mixer)


def test_without_mixing_and_positions_the_order_of_patches_is_invisible() -> None:
    images = torch.randn(2, 3, 16, 24)
    moved = images.roll((4, 8), (2, 3))
    with torch.no_grad():
        blind, seeing = vit("identity", positions="none").eval(), vit("identity", positions="sincos").eval()
        assert_close(blind(moved), blind(images), 1e-5, "no positions")
        assert_differs(seeing(moved), seeing(images), 1e-3, "sincos")


@pytest.mark.parametrize("mixers", ["attention", HYBRID], ids=["attention", "hybrid"])
def test_checkpointing_changes_neither_outputs_nor_gradients(mixers: object) -> None:
    plain = vit(mixers, depth=4, drop_path=0.5).train()
    lean = vit(mixers, depth=4, drop_path=0.5, checkpointing=True).train()
    images = torch.randn(4, 3, 16, 24)
    results = []
    for model in (plain, lean):
        torch.manual_seed(5)  # the same samples are dropped, in the recomputation too
        logits = model(images)
        logits.square().sum().backward()
        results.append(logits)
    assert torch.equal(*results)
    for (name, a), (_, b) in zip(plain.named_parameters(), lean.named_parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad), name


def test_checkpointing_runs_each_block_twice_and_only_for_gradients() -> None:
    model = vit(checkpointing=True)
    calls = []
    model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model(torch.randn(1, 3, 16, 24)).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        model(torch.randn(1, 3, 16, 24))
    assert len(calls) == 3


def test_drop_path_grows_linearly_with_depth() -> None:
    model = vit(depth=5, drop_path=0.2)
    rates = torch.tensor([block.drop_path.rate for block in model.blocks])
    assert_close(rates, torch.tensor([0.0, 0.05, 0.1, 0.15, 0.2]), 1e-6, "rates")
    images = torch.randn(8, 3, 16, 24)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))
    assert torch.equal(model(images), vit(depth=5).eval()(images))


def test_a_pattern_is_cycled_over_depth_with_parameters_of_its_own() -> None:
    model = vit(HYBRID, depth=7)
    assert [mixer.card.name for mixer in model.mixers] == ["conv", "attention", "identity"] * 2 + ["conv"]
    assert model.mixers[3].core.kernel == 3
    assert model.mixers[4].core.heads == 2
    assert model.mixers[4].shell.spec.gate == "none"
    assert model.mixers[3].shell.spec.gate == "silu"
    assert model.backend == "torch+sdpa"
    assert model(torch.randn(1, 3, 16, 24)).shape == (1, 5)


def test_mixers_get_the_nominal_grid() -> None:
    assert {mixer.grid for mixer in vit("random").mixers} == {(4, 6)}
    with pytest.raises(InputError, match=r"mixer random was made for a \(4, 6\) grid and cannot serve \(8, 12\)"):
        vit("random")(torch.zeros(1, 3, 32, 48))


@pytest.mark.parametrize("mixer", every_mixer())
def test_no_weight_decay_names_parameters_of_the_model(mixer: str) -> None:
    model = vit(mixer, positions="learned")
    wishes = {f"blocks.{i}.mixer.{name}" for i in range(2) for name in model.mixers[i].no_weight_decay()}
    assert model.no_weight_decay() == wishes | {"positions.table"}
    assert model.no_weight_decay() <= set(dict(model.named_parameters()))
    assert vit(mixer, positions="sincos").no_weight_decay() == wishes


@pytest.mark.parametrize("mixers", [*every_mixer(), pytest.param(HYBRID, id="hybrid")])
def test_cost_agrees_with_a_counter_that_watches(mixers: object) -> None:
    model = vit(mixers, depth=3, positions="learned").eval()
    cost = model.cost()
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.mixer_macs == sum(mixer.cost(4, 6).macs for mixer in model.mixers)
    tokens, dim = 24, 32
    assert cost.macs - cost.mixer_macs == tokens * 48 * dim + 3 * 2 * tokens * dim * 4 * dim + 5 * dim
    # The mixers' own costs are checked against the counter elsewhere; here, that the trunk forgets nothing around them.
    images, grid = torch.randn(1, 3, 16, 24), torch.randn(1, 4, 6, 32)
    whole = count_macs(model, images)
    mixing = sum(count_macs(mixer, grid) for mixer in model.mixers)
    assert whole - mixing == cost.macs - cost.mixer_macs


def test_cost_at_other_sizes_and_shapes() -> None:
    model = vit("attention")
    small, large = model.cost(), model.cost(32, 48)
    assert model.cost(16, 24) == small
    assert large.parameters == small.parameters
    head = 5 * 32
    assert large.macs - large.mixer_macs - head == 4 * (small.macs - small.mixer_macs - head)
    lean = vit("attention", hidden=0).cost()
    assert small.macs - lean.macs == 2 * 2 * 24 * 32 * 128
    assert small.parameters - lean.parameters == 2 * (2 * 32 * 128 + 128 + 32 + 2 * 32)
    with pytest.raises(InputError, match=r"model.patch=4 does not divide an image of 16×25 pixels"):
        model.cost(16, 25)
    with pytest.raises(InputError, match=r"width=-24 must be an integer >= 1"):
        model.cost(16, -24)


def test_mixed_precision_and_double() -> None:
    model = vit("attention").eval()
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(images.double())
        assert_close(model(images).double(), exact, 1e-5, "float32")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model.features(images).dtype == torch.float32
            assert_close(model(images).double(), exact, 0.03, "bfloat16")


BAD = [
    ({"depth": -1}, r"model.depth=-1 must be an integer >= 1"),
    ({"depth": 1.5}, r"model.depth=1.5 must be an integer >= 1"),
    ({"dim": 0}, r"model.dim=0 must be an integer >= 1"),
    ({"dim": 30}, r"model.dim=30 must be a multiple of 4 with model.positions='sincos'; did you mean 32\?"),
    (
        {"patch": 3, "image_size": (28, 28)},
        r"model.patch=3 does not divide .* 28×28 .*: allowed are 1, 2, 4, 7, 14, 28; .* 4\?",
    ),
    ({"patch": 64}, r"model.patch=64 does not divide .* 16×24 .*: allowed are 1, 2, 4, 8; did you mean 8\?"),
    ({"hidden": -1}, r"model.hidden=-1 must be an integer >= 0"),
    ({"drop_path": 1.0}, r"model.drop_path=1.0 must be a number >= 0 and <= 0.95"),
    ({"positions": "sine"}, r"model.positions='sine' is not known: allowed are sincos, learned, none"),
    ({"norm": "batch"}, r"model.norm='batch' is not known: allowed are layer, rms"),
    ({"checkpointing": "yes"}, r"model.checkpointing='yes' is not known: allowed are True, False"),
    ({"dept": 3}, r"model vit_nano has no 'dept': allowed are .*; did you mean 'depth'\?"),
    ({"num_classes": 0}, r"num_classes=0 must be an integer >= 1"),
    ({"in_channels": 0}, r"in_channels=0 must be an integer >= 1"),
    ({"image_size": (0, 16)}, r"image height=0 must be an integer >= 1"),
    ({"image_size": (16, 16, 3)}, r"image_size=\(16, 16, 3\) must be \(height, width\)"),
    ({"mixers": "attentoin"}, r"mixer='attentoin' is not known: .*; did you mean 'attention'\?"),
    ({"mixers": []}, r"a pattern of 0 mixers does not fit model.depth=2: give 1 to 2"),
    ({"mixers": HYBRID}, r"a pattern of 3 mixers does not fit model.depth=2: give 1 to 2"),
    ({"mixers": ["conv"]}, r"mixers=\['conv'\] must be a MixerSpec or a sequence of them"),
    (
        {"mixers": MixerSpec("conv", {"kernle": 3})},
        r"^mixer conv has no 'kernle': allowed are kernel; did you mean 'kernel'\?",
    ),
    ({"mixers": MixerSpec("conv", shell="comon")}, r"^shell='comon' is not known: .*; did you mean 'common'\?"),
    ({"mixers": MixerSpec("conv", backend="cuda")}, r"^backend of conv='cuda' is not known"),
    ({"mixers": [MixerSpec("conv"), MixerSpec("pool", {"size": 2})]}, r"^block 1: mixer.size"),
]


@pytest.mark.parametrize(
    ("wrong", "message"), BAD, ids=[", ".join(f"{k}={v}" for k, v in w.items())[:40] for w, _ in BAD]
)
def test_bad_input_is_named_in_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        vit(**wrong)
    assert "\n" not in str(caught.value)


def test_a_mixer_that_needs_a_condition_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators.registry.core_class("conv"), "needs_cond", True)
    with pytest.raises(InputError, match="mixer conv is conditioned, and this model has no condition to give"):
        vit("conv")
