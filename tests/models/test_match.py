from __future__ import annotations

from typing import Any

import pytest
import torch

import models
import operators
from models import match, targets
from operators import InputError
from tests.mixers import every_mixer

LARGE = "fno"
"""Has a matrix for each low wave: no width of the other layers brings it down to a small budget."""
SHAPE: dict[str, Any] = {"image_size": (28, 28), "in_channels": 1, "num_classes": 10}


def create(preset: str, mixer: str, **more: Any) -> models.Trunk:
    return models.create(preset, mixers=models.MixerSpec(mixer), **SHAPE, **more)


@pytest.mark.parametrize("preset", ["vit_nano", "dit_nano"])
@pytest.mark.parametrize("mixer", every_mixer(but=[LARGE]))
def test_every_mixer_meets_a_budget_by_the_width_alone(preset: str, mixer: str) -> None:
    wanted = {"vit_nano": {"params": "130K"}, "dit_nano": {"macs": "20M"}}[preset]
    with torch.device("meta"):
        model = create(preset, mixer, match=wanted, depth=2)
        again = create(preset, mixer, hidden=model.spec.hidden, depth=2)
    ((budget, target),) = targets.parse(wanted).items()
    # Counted here, and not by what solved it.
    value = sum(p.numel() for p in model.parameters()) if budget == "params" else model.cost().macs
    assert abs(value / target - 1) <= 0.01
    assert model.spec.dim == models.presets.PRESETS[preset].dim
    assert model.cost() == again.cost()


def test_law_is_affine_in_the_width() -> None:
    with torch.device("meta"):
        costs = [create("vit_nano", "attention", hidden=hidden).cost() for hidden in (1, 2, 3, 100)]
    for name in ("parameters", "macs"):
        one, two, three, hundred = (getattr(cost, name) for cost in costs)
        assert three - two == two - one
        assert hundred == one + 99 * (two - one)


def test_no_other_width_is_nearer_unless_a_multiple_of_eight_is_near_enough() -> None:
    with torch.device("meta"):
        one, two = (create("vit_nano", "conv", hidden=h).cost().parameters for h in (1, 2))
    sizes = {h: one + (h - 1) * (two - one) for h in range(1, 400)}
    for target in (100_003, 150_001, 217_003):
        with torch.device("meta"):
            found = match.verify({"params": target}, create("vit_nano", "conv", match={"params": target}))
        best = min(sizes, key=lambda h: abs(sizes[h] - target))
        near = {h for h in sizes if h % 8 == 0 and abs(sizes[h] / target - 1) <= 0.005}
        assert found.hidden in near if near else found.hidden == best
        assert found.residual == pytest.approx(sizes[found.hidden] / target - 1)


@pytest.mark.parametrize("preset", ["vit_nano", "dit_nano"])
def test_what_is_neither_mixer_nor_feed_forward_keeps_its_bits(preset: str) -> None:
    arms = [create(preset, name, match={"params": "800K"}, seed=3) for name in ("conv", "attention", "ss2d")]
    assert len({arm.spec.hidden for arm in arms}) == 3

    def shared(model: models.Trunk) -> dict[str, torch.Tensor]:
        return {n: p for n, p in model.named_parameters() if ".mixer." not in n and ".ffn." not in n}

    first = shared(arms[0])
    assert any(name.startswith("blocks.0") for name in first)
    for other in map(shared, arms[1:]):
        assert first.keys() == other.keys()
        for name in first:
            assert torch.equal(first[name], other[name]), name


def test_hybrid_meets_a_budget() -> None:
    pattern = [models.MixerSpec("pde_ssm"), models.MixerSpec("attention")]
    model = models.create("vit_nano", mixers=pattern, **SHAPE, match={"macs": 12_000_000})
    assert abs(model.cost().macs / 12e6 - 1) <= 0.01


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"params": "5M"}, {"params": 5_000_000}),
        ({"macs": "1.2G"}, {"macs": 1_200_000_000}),
        ({"params": "200k"}, {"params": 200_000}),
        ({"params": 123456}, {"params": 123456}),
        ({"macs": 1e6}, {"macs": 1_000_000}),
        ({"macs": "1e6"}, {"macs": 1_000_000}),
    ],
)
def test_budget_is_read(given: dict[str, Any], expected: dict[str, int]) -> None:
    assert targets.parse(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3, "must be one budget"),
        ({}, "must be one budget"),
        ({"params": 1, "macs": 2}, "must be one budget"),
        ({"parms": 3}, "did you mean 'params'"),
        ({"params": "5T"}, "with K, M or G"),
        ({"params": 0}, "must be a number >= 1"),
        ({"params": None}, "must be a number"),
    ],
)
def test_wrong_budget_is_refused(given: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        create("vit_nano", "pool", match=given)


def test_budget_out_of_reach_names_the_nearest_that_is_not() -> None:
    with torch.device("meta"):
        least = create("vit_nano", "conv", hidden=1).cost().parameters
        most = create("vit_nano", "conv", hidden=64 * 64).cost().parameters
    with pytest.raises(InputError) as low:
        create("vit_nano", "conv", match={"params": 1000})
    assert f"none below and above {least:,} (model.hidden=1)" in str(low.value)
    with pytest.raises(InputError) as high:
        create("vit_nano", "conv", match={"params": "5G"})
    assert f"below {most:,} (model.hidden=4096) and none above" in str(high.value)
    # Between two widths, where a step is a large share of everything.
    with torch.device("meta"):
        one, two = (create("vit_nano", "identity", hidden=h, dim=4, depth=8).cost().parameters for h in (1, 2))
    with pytest.raises(InputError) as between:
        create("vit_nano", "identity", dim=4, depth=8, match={"params": (one + two) // 2})
    assert f"below {one:,} (model.hidden=1) and above {two:,} (model.hidden=2)" in str(between.value)
    assert "\n" not in str(between.value)


def test_width_beside_a_budget_has_to_meet_it() -> None:
    assert create("vit_nano", "pool", match={"params": "220K"}, hidden=320).spec.hidden == 320
    with pytest.raises(InputError, match=r"model\.hidden=100 does not meet model\.match\.params=220,000"):
        create("vit_nano", "pool", match={"params": "220K"}, hidden=100)


STATEFUL = every_mixer(but=operators.names(state_param=None))


def test_a_mixer_above_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot be met within 2% by the width alone: nearest none below and above"):
        create("vit_nano", LARGE, match={"params": "130K"}, depth=2)


def states(model: models.Trunk) -> set[int]:
    return {mixer.cost(7, 7).state_elements for mixer in model.mixers}


@pytest.mark.parametrize("preset", ["vit_nano", "dit_nano"])
@pytest.mark.parametrize("mixer", STATEFUL)
def test_state_is_met_by_the_parameter_on_the_card_alone(preset: str, mixer: str) -> None:
    target = 2 * 49 * models.presets.PRESETS[preset].dim  # what attention holds
    with torch.device("meta"):
        matched = create(preset, mixer, match={"state": target}, depth=2)
        usual = create(preset, mixer, depth=2)
        attention = create(preset, "attention", match={"state": target}, depth=2)
    (state,) = states(matched)
    assert abs(state / target - 1) <= match.STATE_TOLERANCE
    assert states(attention) == {target}
    found = match.verify({"state": target}, matched)
    assert found.record()["match/residual"] == pytest.approx(state / target - 1)

    def outside(model: models.Trunk) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in model.named_parameters() if ".mixer." not in name}

    assert outside(matched) == outside(usual)


def test_no_other_size_of_a_state_is_nearer() -> None:
    for target in (1000, 2300, 5555):
        with torch.device("meta"):
            (state,) = states(create("vit_nano", "mamba", match={"state": target}, depth=1))
        assert state == min((128 * size for size in range(1, 60)), key=lambda each: abs(each - target))


def test_time_is_left_to_runs() -> None:
    with torch.device("meta"), pytest.raises(InputError, match=r"time=0\.02 is met by measuring, which a run does"):
        create("vit_nano", "pool", match={"time": "20ms"}, depth=1)
    found = {"hidden": 64, "seconds": 0.021, "low": 0.02, "high": 0.022, "repeats": 9, "device": "a clock"}
    with torch.device("meta"):
        model = create("vit_nano", "pool", match={"time": 0.02, "measured": found}, hidden=64, depth=1)
        with pytest.raises(InputError, match="is not the width that was measured"):
            create("vit_nano", "pool", match={"time": 0.02, "measured": found}, hidden=72, depth=1)
    record = match.verify({"time": 0.02, "measured": found}, model).record()
    assert record["match/residual"] == pytest.approx(0.05)
    assert record["match/device"] == "a clock"


def test_hybrid_meets_a_state_in_every_layer() -> None:
    pattern = [models.MixerSpec("pde_ssm"), models.MixerSpec("mamba"), models.MixerSpec("attention")]
    with torch.device("meta"):
        model = models.create("vit_nano", mixers=pattern, **SHAPE, match={"state": 6272})
    assert states(model) == {6272}


@pytest.mark.parametrize(
    ("mixer", "params", "target", "expected"),
    [
        ("attention", {}, 4000, "its state is 6,272 a layer on this grid and no parameter of its own changes it; take"),
        ("pom", {}, 4000, "take {state: 64} for all arms, or one of chimera (state_dim), "),
        ("identity", {}, 4000, "its state is 0 a layer on this grid and no parameter of its own changes it; take one"),
        ("pde_ssm", {}, 4000, "nearest below 3,136 (mixer.state=1) and above 6,272 (mixer.state=2)"),
        ("pde_ssm", {}, 400, "nearest none below and above 3,136 (mixer.state=1)"),
        ("pde_ssm", {"terms": ["reaction"]}, 4000, "its state is 0 a layer"),
        ("mamba", {"state_dim": 8}, 4000, "its state is 1,024 a layer on this grid and mixer.state_dim=8 is given"),
        ("mamba", {}, 10**6, "cannot be met: mixer.state_dim=7812"),
    ],
)
def test_state_out_of_reach_says_what_is_not(mixer: str, params: dict[str, Any], target: int, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        models.create("vit_nano", mixers=models.MixerSpec(mixer, params), **SHAPE, match={"state": target}, depth=1)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
