"""The compiled code: its exponential, its threads, the same code as plain Python, and how it is compiled."""

import math

import numpy as np
import pytest
import torch
from numba import njit
from numba import types as kinds

from operators import jit
from operators.scan import cpu, kernels
from tests.checks import assert_close
from tests.operators.scan.cases import arguments, results


@njit(fastmath={"contract"})
def exponentials(x, y):
    for i in range(len(x)):
        y[i] = kernels.exp32(x[i])


def exp32(x):
    x = np.asarray(x, np.float32)
    y = np.empty_like(x)
    exponentials(x, y)
    return y


def test_exponential_is_right_to_a_unit_in_the_last_place():
    x = np.concatenate([np.linspace(-87.33, 88.7228, 2_000_001), np.linspace(-1, 1, 200_001)]).astype(np.float32)
    x = np.concatenate([x, np.geomspace(1e-45, 1, 10_001).astype(np.float32) * [[1], [-1]]], axis=None)
    exact = np.exp(x.astype(np.float64))
    units = np.abs(exp32(x) - exact) / np.spacing(exact.astype(np.float32))
    assert units.max() < 1


def test_exponential_at_the_ends_of_the_range():
    top = np.float32(88.72283)
    above = np.nextafter(top, np.float32(np.inf))
    assert exp32([top])[0] == pytest.approx(np.exp(np.float64(top)), rel=1e-6)
    assert np.exp(np.float64(above)) > np.finfo(np.float32).max
    assert np.isposinf(exp32([above, 89, 1e3, 3e38, np.inf])).all()
    # Below the least normal number it gives zero, off by no more than that number.
    low = np.linspace(-110, -87.3, 100_001)
    assert np.abs(exp32(low) - np.exp(low.astype(np.float32), dtype=np.float64)).max() < 1.2e-38
    assert (exp32([-104, -1e3, -3e38, -np.inf]) == 0).all()
    assert exp32([0.0])[0] == exp32([-0.0])[0] == 1


def test_exponential_of_every_nan_is_nan():
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    assert np.isnan(exp32(bits.view(np.float32))).all()


def test_exponential_as_plain_python():
    x = np.linspace(-80, 80, 33, dtype=np.float32)
    with np.errstate(over="ignore"):  # integers wrap around where exponents are added
        assert_close(np.array([kernels.exp32.py_func(value) for value in x]), exp32(x), 1e-6, "exp")
        assert np.isinf(kernels.exp32.py_func(np.float32(100)))


def test_each_type_has_its_exponential():
    assert kernels._choose_exp(kinds.float32)(np.float32(1)) == kernels.exp32(np.float32(1))
    assert kernels._choose_exp(kinds.float64)(1.0) == math.e


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_compiled_code_equals_the_same_code_as_plain_python(monkeypatch, dtype, reverse):
    """Python also checks that no index leaves its array at the upper end, which compiled code does not."""
    given = arguments(channels=6, size=2, length=5, groups=2, options="initial", dtype=dtype)
    monkeypatch.setattr(cpu, "CHUNK", 3)
    monkeypatch.setattr("operators.scan.chunked.CHUNK", 3)
    monkeypatch.setattr(cpu, "_blocks", lambda members: (2, 2))  # the second block of a group has an idle lane
    expected = results(given, backend="cpu", reverse=reverse)
    for name in ("_load", "_load_shared", "_store", "_place", "_step", "_advance", "_step_back"):
        monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    monkeypatch.setattr(cpu, "_kernels", lambda dtype: (kernels._forward, kernels._backward))
    for name, found in results(given, backend="cpu", reverse=reverse).items():
        assert_close(found, expected[name], 1e-6 if dtype == torch.float32 else 1e-14, name)


def test_threads_change_no_bit(monkeypatch):
    pools = []

    class Pool(cpu.ThreadPoolExecutor):
        def __init__(self, workers):
            pools.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(cpu, "ThreadPoolExecutor", Pool)
    given = arguments(batch=3, channels=70, size=8, length=200, options="initial", dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append(results(given, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert pools == [1, 1, 2, 2, 4, 4]  # beside the calling thread, forward and backward
    for other in found[1:]:
        for name, value in other.items():
            assert torch.equal(value, found[0][name]), name


def test_a_small_scan_takes_no_thread(monkeypatch):
    monkeypatch.setattr(cpu, "ThreadPoolExecutor", None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    results(arguments(batch=4, length=70), backend="cpu")


@pytest.mark.parametrize("members", [1, 15, 16, 17, 63, 64, 65, 100, 129, 193, 257, 1000])
def test_blocks_cover_a_group(members):
    blocks, lanes = cpu._blocks(members)
    assert lanes % cpu.VECTOR == 0
    assert lanes <= cpu.BLOCK
    places = [kernels._place.py_func(task, 2 * members, 2, lanes) for task in range(3 * 2 * blocks)]
    channels = [(image, first + v) for image, _, _, first, n in places for v in range(n)]
    assert channels == [(image, channel) for image in range(3) for channel in range(2 * members)]


def compiler(monkeypatch, message):
    """The attempts at compiling where every attempt at caching fails with `message`."""
    attempts = []

    def compile_(signature, cache=False, **options):
        attempts.append(cache)
        if cache:
            raise RuntimeError(message)
        return lambda function: function

    monkeypatch.setattr(jit, "njit", compile_)
    return attempts


def test_without_a_place_for_a_cache_it_compiles_in_memory(monkeypatch):
    attempts = compiler(monkeypatch, "cannot cache function '_forward': no locator available for file 'kernels.py'")
    assert kernels.compiled("float32") == (kernels._forward, kernels._backward)
    assert attempts == [True, False, True, False]


def test_other_failures_to_compile_are_shown(monkeypatch):
    attempts = compiler(monkeypatch, "LLVM is not well")
    with pytest.raises(RuntimeError, match="not well"):
        kernels.compiled("float64")
    assert attempts == [True]


def test_only_the_type_in_use_is_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(kernels, "compiled", lambda dtype: asked.append(dtype) or (None, None))
    cpu._kernels.__wrapped__(torch.float32)
    assert asked == ["float32"]
