"""One module, or one process, and several threads: every call gives what it gives alone."""

import itertools
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import models
import operators
from operators import registry
from operators.runtime.once import once
from operators.testing.cases import CHANNELS, Case, call, noise
from tests.operators.options import CASES

THREADS = 4
GRIDS = ((8, 8), (24, 24), (5, 7))


@pytest.fixture(autouse=True)
def _switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def calls_differ(tasks, calls):
    """Of `calls` calls by `THREADS` threads, those that raise or differ in a bit from the same call alone."""
    with torch.no_grad():
        expected = [function(x) for function, x in tasks]
    barrier = threading.Barrier(THREADS)

    def work(number):
        order, wrong = random.Random(number), []
        barrier.wait()
        with torch.no_grad():
            for _ in range(calls // THREADS):
                index = order.randrange(len(tasks))
                function, x = tasks[index]
                try:
                    same = torch.equal(function(x), expected[index])
                except (ValueError, RuntimeError) as error:
                    wrong.append(f"{index}: {type(error).__name__}: {error}")
                else:
                    wrong += [] if same else [f"{index}: another result"]
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        return list(itertools.chain(*pool.map(work, range(THREADS))))


def tasks_of(case, grids, batch=1):
    """Calls of one module on every grid; of one module for each grid where it depends on the grid."""
    mixers = (
        {grid: case.build(grid) for grid in grids} if case.card.fixed_grid else dict.fromkeys(grids, case.build(None))
    )
    inputs = [(mixers[grid], noise(batch, *grid, CHANNELS)) for grid in grids]
    return [((lambda x, mixer=mixer: call(mixer, x)), x) for mixer, x in inputs]


@pytest.mark.parametrize(
    "method",
    ["compiled", "separable", *(pytest.param(name, marks=pytest.mark.slow) for name in ("compiled_fft", "fft"))],
)
def test_threads_share_a_pde_ssm(method):
    """With images enough for what is made to be kept."""
    assert calls_differ(tasks_of(Case("pde_ssm", operators.BARE, {"method": method}), GRIDS[:2], batch=4), 800) == []


@pytest.mark.parametrize("method", ["compiled", "compiled_fft", "fft", "separable"])
def test_what_is_kept_is_read_once(method, monkeypatch):
    """Another call replaces what is kept while a call still compares it: the worst moment for a switch of threads."""
    mixer = Case("pde_ssm", operators.BARE, {"method": method}).build(None)
    small, large = (noise(8, *grid, CHANNELS) for grid in GRIDS[:2])
    equal, interrupted = torch.equal, []

    def equal_after_another_call(a, b):
        if not interrupted:
            interrupted.append(method)
            mixer(large)
        return equal(a, b)

    with torch.no_grad():
        expected = mixer(small)
        monkeypatch.setattr(torch, "equal", equal_after_another_call)
        again = mixer(small)
    assert interrupted
    assert equal(again, expected)


@pytest.mark.slow
def test_threads_share_every_mixer():
    """100,000 calls on three grids; the plain reference, which takes its steps one by one, is called on the least."""
    tasks = []
    for case in CASES:
        tasks += tasks_of(case, GRIDS[2:] if case.params.get("method") == "reference" else GRIDS)
    assert calls_differ(tasks, 100_000) == []


class SlowPoint:
    """An installed package's mixer that takes its time to import."""

    name = "stranger"

    def __init__(self):
        self.started = threading.Event()

    def load(self):
        self.started.set()
        threading.Event().wait(0.2)
        registry._cores[self.name] = registry.core_class("identity")


def test_threads_that_ask_for_names_at_the_same_time_get_all_of_them(monkeypatch):
    point = SlowPoint()
    monkeypatch.setattr(registry, "_cores", dict(registry._cores))
    monkeypatch.setattr(registry, "_loaded", False)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(registry.names)
        point.started.wait(5)
        assert "stranger" in pool.submit(registry.names).result()
        assert "stranger" in first.result()


def test_a_function_is_called_once_by_all_threads():
    made = []

    @once
    def make(number):
        threading.Event().wait(0.05)
        made.append(number)
        return object()

    with ThreadPoolExecutor(THREADS) as pool:
        results = set(pool.map(make, [3] * THREADS))
    assert made == [3]
    assert len(results) == 1


def test_threads_that_build_models_get_the_same_weights():
    def state(_):
        spec = models.MixerSpec("pde_ssm")
        size = {"image_size": (16, 16), "in_channels": 3, "num_classes": 4, "depth": 2, "dim": CHANNELS, "patch": 4}
        return models.create("vit_nano", mixers=spec, seed=5, **size).state_dict()

    expected = state(0)
    with ThreadPoolExecutor(THREADS) as pool:
        for built in pool.map(state, range(8)):
            for name, value in built.items():
                assert torch.equal(value, expected[name]), name
