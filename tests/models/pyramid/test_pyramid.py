"""The pyramid: grids and widths of its stages, costs, initialisation, and what holds whatever the mixer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import models
import operators
from models import MixerSpec, StageMixers, match, targets
from models.pyramid.spec import shares
from operators import InputError
from operators.testing.checks import assert_close
from operators.testing.counter import count_macs
from tests.mixers import every_mixer

SHAPE: dict[str, Any] = {"image_size": (16, 24), "in_channels": 3, "num_classes": 5}


def pyramid(mixers: Any = "pool", **options: Any) -> models.Pyramid:
    spec = MixerSpec(mixers) if isinstance(mixers, str) else mixers
    small = {"dim": 16, "widths": [1, 2, 4], "depths": [1, 2, 1]}
    model = models.create("pyramid_nano", mixers=spec, **{**SHAPE, **small, **options})
    assert isinstance(model, models.Pyramid)
    return model


VARIANTS: list[dict[str, Any]] = [
    {},
    *({"stem": "patch", "patch": patch, "stem_norm": norm} for patch, norm in ((3, "none"), (4, "layer"))),
    *({"stem": "conv7", "patch": patch, "stem_norm": "layer_no_bias"} for patch in (1, 2, 4)),
    *({"stem": "two", "patch": patch, "stem_norm": "batch"} for patch in (1, 4)),
    *({"stem": "four", "patch": patch} for patch in (2, 4)),
    {"stem": "mila", "patch": 4, "down": "mila", "cpe": "both"},
    {"stem": "fast", "patch": 4, "down_norm": "none", "down_bias": False, "head": "batch_mean"},
    {"stem": "s16", "patch": 16, "down": "mbv", "residual": "gated", "head": "fused"},
    {"down": "merge", "ffn": "conv_before", "head": "mean_norm"},
    {"down_norm": "pre", "norm": "layer_no_bias", "residual_scales": 2, "ffn": "star", "head": "mlp_squared"},
    {"down_norm": "batch", "ffn": "conv_after", "ffn_ratio": 3.5, "layer_scale": 0.1, "cpe": "mixer", "head": "conv"},
    {"block": "post", "norm": "group", "layer_scale": 1e-5},
    {"residual": "one", "positions": "learned", "norm": "rms"},
    {"hidden": 0, "head": "mlp"},
    {"widths": [1, 1.5, 2.5], "hidden": 50, "gelu": "tanh"},
    {"positions": "learned", "embedding_norm": True, "ffn": "channel_mix", "block": "post", "layer_scale": 1.0},
    {"norm": "affine", "layer_scale": 0.1, "drop_path_grows": False, "head": "ends"},
    {"stage_norms": True, "down_bias": False, "layer_scale": 0.5, "head": "conv_gelu"},
    {"positions": "stages", "ffn_ratio": [3, 2, 1.5]},
    {"conv_stages": 2, "stem": "fast", "patch": 4, "down_norm": "none", "norm": "rms"},
]


def called(variant: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in variant.items()) or "default"


@pytest.mark.parametrize("variant", VARIANTS, ids=called)
def test_grids_and_costs_of_every_switch(variant: dict[str, Any]) -> None:
    """Odd and oblong images: each stage has half the grid, rounded up, and the counter finds the cost."""
    model = pyramid(**variant).eval()
    for height, width in ((16, 24), (37, 21), (1, 5)):
        images = torch.randn(1, 3, height, width)
        with torch.no_grad():
            stages = model.stages(images)
        stride = model.spec.patch
        expected = [(-(-height // (stride << stage)), -(-width // (stride << stage))) for stage in range(3)]
        assert [tuple(stage.shape[1:3]) for stage in stages] == model.stage_grids(height, width) == expected
        assert [stage.shape[-1] for stage in stages] == list(model.spec.dims)
        assert count_macs(model, images) == model.cost(height, width).macs
    assert model(torch.randn(2, 3, 16, 24)).shape == (2, 5)


@pytest.mark.parametrize("variant", VARIANTS, ids=called)
def test_every_parameter_is_used(variant: dict[str, Any]) -> None:
    model = pyramid("conv", **variant).train()
    model(torch.randn(3, 3, 21, 24)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


MANY = {"widths": [1, 2], "depths": [1, 1], "dim": 32}


@pytest.mark.parametrize("mixer", every_mixer())
def test_every_mixer(mixer: str) -> None:
    """Each is made for the width and grid of its stage, keeps its own initialisation, and leaves the trunk its bits."""
    model, bare = pyramid(mixer, **MANY).eval(), pyramid("identity", **MANY)
    for index, (built, dim, grid) in enumerate(zip(model.mixers, (32, 64), ((8, 12), (4, 6)), strict=True)):
        assert (built.dim, built.grid) == (dim, grid)
        with models.seeded(0, f"blocks.{index}.mixer"):
            alone = operators.create(mixer, dim, grid=grid)
        for name, value in alone.state_dict().items():
            assert torch.equal(value, built.state_dict()[name]), f"block {index}: {name}"
    trunk = {name: value for name, value in model.state_dict().items() if ".mixer." not in name}
    expected = {name: value for name, value in bare.state_dict().items() if ".mixer." not in name}
    assert trunk.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in trunk.items())
    cost = model.cost()
    assert cost.mixer_macs == model.mixers[0].cost(8, 12).macs + model.mixers[1].cost(4, 6).macs
    assert cost.macs - cost.mixer_macs == bare.cost().macs - bare.cost().mixer_macs
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert model.no_weight_decay() == {
        f"blocks.{i}.mixer.{n}" for i in (0, 1) for n in model.mixers[i].no_weight_decay()
    }
    with torch.device("meta"):
        assert pyramid(mixer, **MANY)(torch.empty(2, 3, 16, 24)).shape == (2, 5)


def test_a_trunk_that_initialises_its_mixers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(model: torch.nn.Module, seed: int) -> None:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)

    monkeypatch.setattr("models.pyramid.pyramid.initialise", overwrite)
    with pytest.raises(AssertionError, match="block 0: "):
        test_every_mixer("pom")


def test_initial_values() -> None:
    model = pyramid(
        dim=64, stem="mila", patch=4, down="mila", cpe="both", layer_scale=0.5, residual_scales=1, head="fused"
    )
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "bias", "num_batches_tracked", "weights.value")):
            assert (value == 0).all(), name
        elif "norm" in name or name.endswith(("running_var", "residual.value")):
            assert (value == 1).all(), name
        elif name.endswith("scale.value"):
            assert (value == 0.5).all(), name
        else:
            assert value.std() == pytest.approx((3 * value[0].numel()) ** -0.5, rel=0.1), name
    assert {name for name, _ in model.named_parameters() if name.endswith("residual.value")} == {
        "blocks.3.mixer_residual.value",
        "blocks.3.ffn_residual.value",
    }
    gates = pyramid(stem="s16", patch=16, residual="gated").blocks[0].get_submodule("gates.0")
    assert_close(gates.get_parameter("value").sigmoid(), torch.full((16,), 0.500025), 1e-6, "gate")


def test_depth_and_dim_leave_the_first_blocks_as_they_are() -> None:
    shallow, deep = pyramid(depths=[1, 1, 1]).state_dict(), pyramid(depths=[1, 2, 2]).state_dict()
    same = [name for name in shallow if name.startswith(("stem", "downs", "blocks.0", "blocks.1"))]
    assert len(same) > 20
    assert all(torch.equal(shallow[name], deep[name]) for name in same)


def test_blocks_of_convolutional_stages() -> None:
    """x + BN(Conv(GELU(BN(Conv(mixer(x)))))), in the first stages alone."""
    model = pyramid(conv_stages=1, depths=[1, 1, 1]).double().eval()
    block, x = model.blocks[0], torch.randn(2, 5, 7, 16, dtype=torch.float64)
    for name, value in block.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + ("running_var" in name))
    z = block.mixer(x).movedim(-1, 1)
    for part in (block.first, block.second):
        z = F.conv2d(z, part.conv.weight, part.conv.bias, padding=1)
        z = F.batch_norm(z, part.norm.running_mean, part.norm.running_var, part.norm.weight, part.norm.bias)
        z = F.gelu(z, approximate="tanh") if part is block.first else z
    assert_close(block(x), x + z.movedim(1, -1), 1e-12, "block")
    assert [type(block).__name__ for block in model.blocks] == ["ConvBlock", "StageBlock", "StageBlock"]


def test_positions_of_stages_are_added_in_front_of_them() -> None:
    with_tables, without = pyramid(positions="stages").eval(), pyramid().eval()
    names = {"positions.table", "stage_positions.0.table", "stage_positions.1.table"}
    assert with_tables.state_dict().keys() - without.state_dict().keys() == names == with_tables.no_weight_decay()
    assert [tuple(with_tables.state_dict()[name].shape) for name in sorted(names)] == [
        (8, 12, 16),
        (4, 6, 32),
        (2, 3, 64),
    ]
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        assert not torch.equal(with_tables(images), without(images))
        for name in names:
            with_tables.get_parameter(name).zero_()
        assert torch.equal(with_tables(images), without(images))


def test_norms_behind_stages() -> None:
    for stage in pyramid(stage_norms=True).stages(torch.randn(2, 3, 16, 24)):
        assert_close(stage.var(-1, correction=0), torch.ones_like(stage[..., 0]), 1e-3, "variance over channels")


def test_drop_path_grows_linearly_over_all_stages() -> None:
    model = pyramid(depths=[2, 2, 1], drop_path=0.2)
    rates = torch.tensor([block.drop_path.rate for block in model.blocks])
    assert_close(rates, torch.tensor([0.0, 0.05, 0.1, 0.15, 0.2]), 1e-6, "rates")
    level = pyramid(depths=[2, 2, 1], drop_path=0.2, drop_path_grows=False)
    assert_close(torch.tensor([block.drop_path.rate for block in level.blocks]), torch.full((5,), 0.2), 1e-6, "rates")
    images = torch.randn(8, 3, 16, 24)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), pyramid(depths=[2, 2, 1]).eval()(images))


def test_checkpointing_changes_neither_outputs_nor_gradients() -> None:
    results, images = [], torch.randn(4, 3, 16, 24)
    for checkpointing in (False, True):
        model = pyramid("attention", drop_path=0.5, checkpointing=checkpointing).train()
        torch.manual_seed(5)
        logits = model(images)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for plain, lean in zip(*results, strict=True):
        assert torch.equal(plain, lean)


@pytest.mark.parametrize(
    "variant", [{}, VARIANTS[10], VARIANTS[11], {"ffn": "channel_mix", "norm": "affine"}], ids=called
)
def test_mixed_precision(variant: dict[str, Any]) -> None:
    model = pyramid("attention", **variant).eval()
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(images.double())
        assert_close(model(images).double(), exact, 1e-5, "float32")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert {stage.dtype for stage in model.stages(images)} == {torch.float32}
            assert_close(model(images).double(), exact, 0.05, "bfloat16")


def test_mixers_stage_by_stage() -> None:
    heads = [MixerSpec("attention", {"heads": heads}) for heads in (1, 2)]
    mixers = StageMixers(((MixerSpec("conv", shell="published"),), (heads[0], heads[1]), (heads[1],)))
    model = pyramid(mixers, depths=[1, 3, 1])
    assert [mixer.card.name for mixer in model.mixers] == ["conv", *["attention"] * 4]
    assert [mixer.core.heads for mixer in model.mixers[1:]] == [1, 2, 1, 2]
    assert model.mixers[0].shell.spec.gate == "none"
    assert model.assigned == [0, 1, 2, 1, 3]
    assert model.backend == "torch+sdpa"
    pattern = pyramid([MixerSpec("conv"), MixerSpec("pool")], depths=[1, 3, 1])
    assert [mixer.card.name for mixer in pattern.mixers] == ["conv", "pool", "conv", "pool", "conv"]
    alone = models.create("vit_nano", mixers=StageMixers(((heads[0],),)), **SHAPE)
    assert [mixer.core.heads for mixer in alone.mixers] == [1] * 4


def test_hidden_matrices_are_linear_layers_inside_blocks() -> None:
    matrices = pyramid("attention", cpe="both").hidden_matrices()
    assert {"blocks.0.ffn.up.weight", "blocks.3.mixer.core.qk.weight"} <= matrices
    assert all(name.startswith("blocks.") and "position" not in name for name in matrices)


@pytest.mark.parametrize(
    ("depths", "total", "expected"),
    [
        ((2, 2, 6, 2), 12, (2, 2, 6, 2)),
        ((2, 2, 6, 2), 24, (4, 4, 12, 4)),
        ((2, 2, 6, 2), 7, (1, 1, 4, 1)),
        ((2, 2, 6, 2), 3, (1, 1, 1, 1)),
        ((1, 2, 1), 3, (1, 1, 1)),
    ],
)
def test_blocks_are_shared_out(depths: tuple[int, ...], total: int, expected: tuple[int, ...]) -> None:
    assert shares(depths, total) == expected
    assert len(pyramid(widths=[1] * len(depths), depths=depths, depth=total).blocks) == sum(expected)


def test_feed_forward_widths_are_in_proportion() -> None:
    assert pyramid(hidden=50, widths=[1, 1.5, 2.5]).spec.hiddens == (50, 75, 125)
    assert pyramid(ffn_ratio=3.5, dim=18).spec.hiddens == (63, 126, 252)
    assert pyramid(ffn_ratio=[8, 4, 2]).spec.hiddens == (128, 128, 128)
    assert pyramid(hidden=0).spec.hiddens == (0, 0, 0)


@pytest.mark.parametrize("budget", [{"params": "120K"}, {"macs": "4M"}])
@pytest.mark.parametrize("widths", [[1, 2, 4], [1, 1.5, 2.25]])
def test_a_budget_is_met_by_the_width_of_the_first_stage(budget: dict[str, str], widths: list[float]) -> None:
    with torch.device("meta"):
        model = pyramid("attention", match=budget, widths=widths)
        cost = model.cost()
        near = [pyramid("attention", hidden=model.spec.hidden + step, widths=widths).cost() for step in (-8, 8)]
    ((name, target),) = targets.parse(budget).items()
    sizes = [getattr(each, {"params": "parameters"}.get(name, name)) for each in (cost, *near)]
    assert abs(sizes[0] / target - 1) <= 0.005
    assert abs(sizes[0] - target) < min(abs(size - target) for size in sizes[1:])
    assert model.spec.hiddens == tuple(round(model.spec.hidden * dim / 16) for dim in model.spec.dims)


def test_a_state_is_that_of_the_first_stage() -> None:
    with torch.device("meta"):
        model = pyramid("ss2d", match={"state": 4 * 16 * 5}, depths=[2, 2, 1])
        stages = StageMixers(((MixerSpec("ss2d"),),) * 3)
        each = pyramid(stages, match={"state": 4 * 16 * 8}, depths=[2, 2, 1])
    assert {mixer.core.branches[0].state_dim for mixer in model.mixers} == {5}
    assert match.verify({"state": 320}, model).value == 320
    assert [mixer.core.branches[0].state_dim for mixer in each.mixers] == [8, 8, 4, 4, 2]
    assert [mixer.cost(4, 4).state_elements for mixer in each.mixers] == [512] * 5


BAD: list[tuple[dict[str, Any], str]] = [
    ({"widths": [1, 2]}, r"model.depths=\[1, 2, 1\] must have one number for each of the 2 stages"),
    ({"depths": 3}, r"model.depths=3 must be a list of one number for each stage, of 1 to 8 stages"),
    ({"depths": [1, 0, 1]}, r"model.depths\[1\]=0 must be an integer >= 1"),
    ({"widths": [1, "two", 4]}, r"model.widths\[1\]='two' must be a number"),
    ({"dim": 0}, r"model.dim=0 must be an integer >= 1"),
    ({"stem": "tow"}, r"model.stem='tow' is not known: allowed are .*; did you mean 'two'\?"),
    ({"stem": "mila"}, r"model.patch=2 is no stride of model.stem='mila': allowed are 4"),
    ({"norm": "batch"}, r"model.norm='batch' is not known: allowed are layer, layer_no_bias, rms, group"),
    ({"residual": "one", "block": "post"}, r"model.block='post' does not go with model.residual='one'.* 'pre'"),
    ({"residual": "gated", "cpe": "both"}, r"model.cpe='both' does not go with model.residual='gated'"),
    ({"residual": "one", "hidden": 0}, r"model.residual='one' needs a feed-forward network: model.hidden is 0"),
    ({"residual": "one", "ffn_ratio": [4, 4, 0]}, r"model.residual='one' needs a feed-forward network: "),
    ({"residual": "gated", "checkpointing": True}, r"model.checkpointing=True would count every batch twice"),
    ({"conv_stages": 1, "checkpointing": True}, r"model.checkpointing=True .* model.conv_stages=1: leave it out"),
    ({"conv_stages": 4}, r"model.conv_stages=4 must be an integer >= 0 and <= 3"),
    ({"ffn_ratio": [4, 2]}, r"model.ffn_ratio=\[4, 2\] must be a number, or have one for each of the 3 stages"),
    ({"ffn_ratio": [4, -2, 1]}, r"model.ffn_ratio=-2 must be a number >= 0"),
    ({"stage_norms": "layer"}, r"model.stage_norms='layer' is not known: allowed are True, False"),
    ({"residual_scales": 4}, r"model.residual_scales=4 must be an integer >= 0 and <= 3"),
    ({"depht": 3}, r"model pyramid_nano has no 'depht': allowed are .*; did you mean 'depth'\?"),
    ({"mixers": StageMixers(((MixerSpec("conv"),),))}, r"mixers for 1 stages do not fit a trunk that has 3"),
    (
        {"mixers": StageMixers(((MixerSpec("conv"),) * 2,) * 3)},
        r"a pattern of 2 mixers does not fit the 1 blocks of stage 0",
    ),
    ({"mixers": MixerSpec("attention", {"heads": 3})}, r"^block 0: mixer.heads=3 must divide the width 16"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=[called(wrong)[:40] for wrong, _ in BAD])
def test_bad_input_is_named_in_one_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        pyramid(**wrong)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"StageMixers.stages: .* must be a tuple of one MixerSpec or more"):
        StageMixers(((),))


def test_weights_of_a_vit_are_refused(tmp_path: Path) -> None:
    from tasks.config.start import Start
    from tasks.weights.start import fill

    torch.save({"patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "vit.pth")
    start = Start("vit", str(tmp_path / "vit.pth"), "init=vit.pth")
    with pytest.raises(InputError, match=r"init=vit\.pth is in timm's layout of ViTs, and this model is a pyramid"):
        fill(pyramid(), start, [0.5] * 3, [0.5] * 3)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"the model takes images \(B, 3, H, W\), not \(1, 1, 16, 24\)"):
        pyramid()(torch.zeros(1, 1, 16, 24))
    with pytest.raises(InputError, match=r"mixer random was made for a \(8, 12\) grid and cannot serve \(16, 24\)"):
        pyramid("random")(torch.zeros(1, 3, 32, 48))
