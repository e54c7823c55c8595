import gc
import math
from time import perf_counter, sleep

import pytest
import torch

from operators.benchmark.measuring import clock
from operators.benchmark.measuring.clock import Lane, peak_bytes, round_robin
from operators.benchmark.workload import BOTH, FORWARD, Workload, functions, leaf
from tests.operators.benchmark.cases import CPU

IDLE = Workload(lambda: torch.zeros(1), ())


def lanes(calls, *labels, cost=0.0):
    def function(label):
        return lambda: calls.append(label)

    return [Lane(label, FORWARD, function(label), IDLE, CPU, cost=cost) for label in labels]


def test_every_round_samples_every_lane_and_every_second_one_backwards():
    calls = []
    made = lanes(calls, "a", "b", "c")
    samples = []
    round_robin(made, 3, after=lambda: samples.append(1))
    assert "".join(calls) == "abc" + "cba" + "abc"
    assert [len(lane.samples) for lane in made] == [3, 3, 3]
    assert len(samples) == 9
    assert gc.isenabled()


@pytest.mark.parametrize(("rounds", "least", "taken"), [(9, 3, 3), (2, 3, 2), (9, 1, 1)])
def test_it_ends_early_only_after_the_least_number_of_rounds(rounds, least, taken):
    made = lanes([], "a", "b", cost=1.0)
    round_robin(made, rounds, deadline=perf_counter(), least=least)
    assert [len(lane.samples) for lane in made] == [taken, taken]


def test_samples_are_seconds_per_call():
    lane = Lane("a", FORWARD, lambda: sleep(0.004), IDLE, CPU, calls=5)
    lane.sample()
    assert 0.004 <= lane.samples[0] < 0.02


def test_short_calls_are_repeated_until_a_sample_is_long_enough(monkeypatch):
    monkeypatch.setattr(clock, "LEAST_SAMPLE", 0.01)
    x = torch.zeros(4)
    lane = Lane("a", FORWARD, x.exp, IDLE, CPU)
    lane.calibrate()
    assert lane.calls > 1
    assert lane.cost >= 0.01


def test_a_long_call_is_a_sample_by_itself(monkeypatch):
    monkeypatch.setattr(clock, "LEAST_SAMPLE", 0.001)
    lane = Lane("a", FORWARD, lambda: sleep(0.002), IDLE, CPU)
    lane.calibrate()
    assert lane.calls == 1


def test_calibration_shows_the_output_beside_its_gradients_and_leaves_none(monkeypatch):
    monkeypatch.setattr(clock, "LEAST_SAMPLE", 0.0)
    x = leaf(torch.ones(3))
    workload = Workload(lambda: 2 * x, (x,))
    seen = []
    lane = Lane("a", BOTH, functions(workload, CPU)[BOTH], workload, CPU)
    lane.calibrate(check=lambda output: seen.append((output.sum().item(), x.grad is not None)))
    assert seen == [(6.0, True)]
    assert x.grad is None


def test_peak_memory_counts_buffers_that_are_gone_again():
    x = torch.zeros(1000)

    def work():
        y = x + 1  # 4000 bytes
        z = y.double()  # 8000 more
        del y
        return z.float()  # 4000 more, beside z

    assert peak_bytes(work, CPU) == pytest.approx(12000, abs=512)


def test_peak_memory_of_a_backward_pass_holds_what_was_saved_and_the_gradient():
    x = leaf(torch.ones(1000))
    workload = Workload(lambda: x.exp().exp(), (x,))
    both = functions(workload, CPU)[BOTH]
    both()
    workload.clear()
    # Both exponentials are saved; the gradient of the output was there before; each product makes one of 4000 bytes.
    assert 4 * 3000 <= peak_bytes(both, CPU) <= 4 * 4000 + 512
    workload.clear()
    assert peak_bytes(functions(workload, CPU)[FORWARD], CPU) == pytest.approx(4 * 2000, abs=512)


def test_the_gradient_handed_in_is_dense_and_random():
    x = leaf(torch.zeros(200))
    workload = Workload(lambda: 1 * x, (x,))
    both = functions(workload, CPU)[BOTH]
    both()
    first = x.grad.clone()
    both()
    assert torch.equal(first, x.grad)  # the same in each call, and not added up
    assert len(first.unique()) > 190
    assert math.isclose(first.std().item(), 1, rel_tol=0.2)


def test_forward_takes_no_gradients():
    x = leaf(torch.ones(3))
    assert not functions(Workload(lambda: 2 * x, (x,)), CPU)[FORWARD]().requires_grad
