import pytest

from operators.benchmark.arms import MixerArm
from operators.benchmark.bare import BareArm
from operators.benchmark.measuring.clock import peak_bytes
from operators.benchmark.measuring.guard import MARGIN, Guard, available_bytes, foretell
from operators.benchmark.workload import BOTH, Shape, functions
from tests.operators.benchmark.cases import CPU

SHAPE = Shape(batch=1, height=48, width=48, dim=8)


@pytest.mark.parametrize(("linear", "square"), [(100, 0), (100, 3), (0, 8)])
def test_memory_of_known_growth_is_foretold_exactly(linear, square):
    def taken(n):
        return linear * n + square * n * n

    assert foretell(4096, (64, taken(64)), (256, taken(256))) == pytest.approx(taken(4096))


def test_memory_that_falls_behind_is_foretold_as_linear():
    assert foretell(1000, (10, 1000), (100, 2000)) == pytest.approx(20_000)


@pytest.mark.parametrize(
    ("arm", "slack"),
    [
        (MixerArm("attention", "core", {"backend": "reference"}), 0.3),
        (MixerArm("random", "core"), 0.3),
        (BareArm(MixerArm("linear_attention", "core")), 0.3),
        (MixerArm("gated_deltanet", "core"), 0.3),
        (MixerArm("retention_2d", "core"), 0.3),
    ],
    ids=["attention maps", "token matrix", "bare operations", "chunks", "attention maps and masks"],
)
def test_what_is_foretold_is_what_comes(arm, slack):
    def need(limit):
        return Guard(limit).refusal(arm, SHAPE, CPU)

    foretold = float(need(256 << 10).partition("about ")[2].partition(" GiB")[0]) * 2**30 / MARGIN
    taken = peak_bytes(lambda: functions(arm.build(SHAPE, CPU), CPU)[BOTH](), CPU)
    assert foretold == pytest.approx(taken, rel=slack)
    assert need(int(2 * taken)) is None


def test_probes_are_made_once(monkeypatch):
    guard, made = Guard(1 << 40), []
    monkeypatch.setattr(Guard, "_probe", staticmethod(lambda *given: made.append(given[2]) or (made[-1][0] ** 2, 1)))
    for side in (40, 48, 64):
        assert guard.refusal(MixerArm("conv"), Shape(1, side, side, 8), CPU) is None
    assert made == [(24, 24), (32, 32)]


def test_small_grids_are_not_probed_and_impossible_ones_neither(monkeypatch):
    monkeypatch.setattr(Guard, "_probe", None)
    assert Guard(1 << 30).refusal(MixerArm("conv"), Shape(1, 32, 32, 8), CPU) is None
    assert "would need about" in Guard(1 << 10).refusal(MixerArm("conv"), SHAPE, CPU)


def test_free_memory_is_known():
    assert 1 << 20 < available_bytes("cpu") <= 1 << 62
