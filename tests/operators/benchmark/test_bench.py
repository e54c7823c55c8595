from collections import Counter
from dataclasses import replace

import pytest
import torch

from operators.benchmark import bench as module
from operators.benchmark.arms import MixerArm, mixer_arms
from operators.benchmark.bench import Bench
from operators.benchmark.rivals import rival_arms
from operators.benchmark.table import TimingTable, key
from operators.benchmark.workload import BOTH, FORWARD, Shape, Target
from tests.operators.benchmark import cases
from tests.operators.benchmark.cases import TINY, plan

pytestmark = pytest.mark.usefixtures("hurried")


def test_a_run_over_two_mixers_measures_everything(tmp_path):
    shares = []
    bench = Bench(
        plan(tmp_path, places=[Target("cpu", "float32"), Target("cpu", "bfloat16")]),
        advance=lambda share, doing: shares.append(share),
    )
    outcome = bench.run()
    rows = TimingTable(bench.path("cpu")).rows
    assert (outcome.written, outcome.failed, outcome.skipped, outcome.left) == (8, {}, {}, 0)
    assert [(row.dtype, row.arm, row.work) for row in rows] == [
        (dtype, arm, work)
        for dtype in ("float32", "bfloat16")
        for arm in ("identity", "pool")
        for work in (FORWARD, BOTH)
    ]
    assert sum(shares) == pytest.approx(bench.total)
    for row in rows:
        assert 0 < row.seconds_low <= row.seconds <= row.seconds_high < 1
        assert row.samples == row.repeats == 2
        assert row.peak_bytes >= 4 * TINY.tokens * TINY.dim
        best = max(row.flops / row.product_rate, row.traffic_bytes / row.copy_bandwidth)
        assert row.share == pytest.approx(best / row.seconds)
        assert row.error < 1e-2
        assert row.ratio_low <= row.ratio <= row.ratio_high
    assert [row.ratio for row in rows if row.arm == "identity"] == [1.0] * 4
    assert len({row.run for row in rows}) == 2  # one interleaved measurement for each type
    assert "threads" in bench.path("cpu").name


@pytest.mark.slow
def test_a_killed_run_is_completed_with_each_row_once(tmp_path, monkeypatch):
    append = TimingTable.append

    class KilledError(Exception):
        pass

    def dying(self, row):
        if len(self.rows) == 3:
            raise KilledError
        append(self, row)

    wanted = plan(tmp_path, mixer_arms(["identity", "pool", "conv"], "mixer", {}), [TINY, replace(TINY, height=5)])
    monkeypatch.setattr(TimingTable, "append", dying)
    with pytest.raises(KilledError):
        Bench(wanted).run()
    monkeypatch.setattr(TimingTable, "append", append)
    first = TimingTable(Bench(wanted).path("cpu")).rows
    assert len(first) == 3
    bench = Bench(wanted)
    assert bench.run().written == 9
    rows = TimingTable(bench.path("cpu")).rows
    assert rows[:3] == first
    assert Counter(map(key, rows)).most_common(1)[0][1] == 1
    assert len(rows) == 12
    # What was missing was timed beside the reference once more: its ratios are those of one run.
    late = [row for row in rows[3:] if row.height == 3]
    assert {row.run for row in late}.isdisjoint(row.run for row in first)
    assert all(row.ratio is not None for row in late)
    assert Bench(wanted).run().written == 0


def test_other_settings_are_measured_beside_what_is_there(tmp_path):
    Bench(plan(tmp_path)).run()
    assert Bench(plan(tmp_path, repeats=1)).run().written == 4
    assert Bench(plan(tmp_path, reference=None)).run().written == 4


def test_without_a_reference_there_are_no_ratios(tmp_path):
    bench = Bench(plan(tmp_path, reference=None))
    bench.run()
    assert {row.ratio for row in bench.tables["cpu"].rows} == {None}


def test_pieces_of_no_minutes_complete_the_table_one_arm_at_a_time(tmp_path):
    wanted = plan(tmp_path, mixer_arms(["identity", "pool", "conv"], "mixer", {}), minutes=0)
    written = []
    for left in (4, 2, 0):
        outcome = Bench(wanted).run()
        written.append(outcome.written)
        assert outcome.left == left
    assert written == [2, 2, 2]
    bench = Bench(wanted)
    assert bench.run().written == 0
    assert len(bench.tables["cpu"].rows) == 6
    assert all(row.ratio is not None and 1 <= row.samples <= 2 for row in bench.tables["cpu"].rows)


@pytest.mark.parametrize("core", [cases.WrongOutput, cases.WrongGradient, cases.Infinite])
def test_a_broken_mixer_fails_and_is_not_timed(tmp_path, enter, core):
    arms = [MixerArm(enter(core, "broken")), MixerArm("identity")]
    bench = Bench(plan(tmp_path, arms, reference="identity"))
    outcome = bench.run()
    ((arm, reason),) = outcome.failed
    assert arm == "broken"
    assert "against its float64 reference" in reason
    assert {row.arm for row in bench.tables["cpu"].rows} == {"identity"}


def test_numbers_that_are_not_finite_at_the_timed_shape_fail(tmp_path, enter):
    arms = [MixerArm(enter(cases.OnlyLarge, "large"), "core")]
    outcome = Bench(plan(tmp_path, arms, [TINY, replace(TINY, height=14)])).run()
    assert outcome.written == 2
    assert outcome.failed == {("large", "forward: the output is not finite"): ["cpu float32 14x4"]}


def test_the_gate_is_asked_once_for_each_backend_and_small_shape(tmp_path):
    asked = []

    def judge(*given):
        asked.append((given[0].label, given[1].height, given[3]))
        return module.gate.judge(*given)

    shapes = [replace(TINY, height=side, width=side) for side in (4, 14, 18)]
    Bench(plan(tmp_path, mixer_arms(["pool"], "core", {}), shapes), judge=judge).run()
    assert asked == [("pool", 4, "torch"), ("pool", 14, "torch")]


def test_the_backend_is_the_one_that_served(tmp_path, enter):
    asked = []

    def judge(*given):
        asked.append(given[3])
        return module.gate.judge(*given)

    bench = Bench(plan(tmp_path, [MixerArm(enter(cases.Wavering, "wavering"), "core")]), judge=judge)
    assert bench.run().written == 2
    assert asked == ["fast", "reference"]
    assert {row.backend for row in bench.tables["cpu"].rows} == {"reference"}


def test_what_does_not_fit_or_is_not_there_is_skipped_with_its_reason(tmp_path, enter):
    arms = [
        MixerArm("attention", "core", {"backend": "reference"}),
        MixerArm("identity", "core"),
        MixerArm(enter(cases.Scale, "demanding", min_grid=(40, 1)), "core"),
        *rival_arms("mamba_ssm"),
    ]
    bench = Bench(plan(tmp_path, arms, [Shape(1, 36, 36, 4)], reference="identity", memory=200_000))
    outcome = bench.run()
    reasons = dict(list(outcome.skipped))
    assert "GiB" in reasons["attention[backend=reference]"]
    assert reasons["demanding"] == "needs a grid of at least 40x1"
    assert "CUDA tensors only" in reasons["rival mamba_ssm"]
    assert outcome.failed == {}
    assert {row.arm for row in bench.tables["cpu"].rows} == {"identity"}


def test_a_backend_that_cannot_serve_is_skipped(tmp_path):
    arms = [MixerArm("attention", "core", {"backend": "xformers"}), MixerArm("identity", "core")]
    outcome = Bench(plan(tmp_path, arms)).run()
    ((arm, reason),) = outcome.skipped
    assert arm == "attention[backend=xformers]"
    assert "cannot serve" in reason
    assert outcome.written == 2


@pytest.mark.parametrize(
    ("error", "skipped"),
    [
        (torch.OutOfMemoryError("no"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("something else"), False),
    ],
)
def test_running_out_of_memory_skips_and_other_errors_do_not_hide(tmp_path, monkeypatch, error, skipped):
    def build(self, shape, place):
        raise error

    monkeypatch.setattr(MixerArm, "build", build)
    bench = Bench(plan(tmp_path))
    if not skipped:
        with pytest.raises(RuntimeError, match="something else"):
            bench.run()
        return
    assert {reason for _, reason in bench.run().skipped} == {"out of memory"}


def test_time_left_is_not_exceeded_by_arms_that_are_known_to_be_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(module.Lane, "calibrate", slow(module.Lane.calibrate))
    outcome = Bench(plan(tmp_path, mixer_arms(["identity", "pool", "conv"], "mixer", {}), minutes=0.5)).run()
    assert (outcome.written, outcome.left) == (4, 2)


def slow(calibrate):
    """Lanes that claim to take seconds: five for each of the arms, nothing for the ceilings."""

    def claimed(self, check=lambda output: None):
        output = calibrate(self, check)
        self.cost = 0.0 if self.label in ("copy", "matrix product") else 3.5
        return output

    return claimed
