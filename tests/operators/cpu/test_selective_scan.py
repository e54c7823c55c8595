"""The compiled code: its threads, the same code as plain Python, and how it is compiled."""

import pytest
import torch

from operators.cpu import compilation, selective_scan
from operators.scan import cpu
from operators.testing.checks import assert_close
from tests.operators.scan.cases import arguments, results


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
        monkeypatch.setattr(selective_scan, name, getattr(selective_scan, name).py_func)
    monkeypatch.setattr(cpu, "_kernels", lambda dtype: (selective_scan._forward, selective_scan._backward))
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
    places = [selective_scan._place.py_func(task, 2 * members, 2, lanes) for task in range(3 * 2 * blocks)]
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

    monkeypatch.setattr(compilation, "njit", compile_)
    return attempts


def test_without_a_place_for_a_cache_it_compiles_in_memory(monkeypatch):
    attempts = compiler(monkeypatch, "cannot cache function '_forward': no locator available for file 'kernels.py'")
    codes = [function.__code__ for function in selective_scan.compiled("float32")]
    assert codes == [selective_scan._forward.__code__, selective_scan._backward.__code__]
    assert attempts == [True, False, True, False]


def test_other_failures_to_compile_are_shown(monkeypatch):
    attempts = compiler(monkeypatch, "LLVM is not well")
    with pytest.raises(RuntimeError, match="not well"):
        selective_scan.compiled("float64")
    assert attempts == [True]


def test_only_the_type_in_use_is_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(selective_scan, "compiled", lambda dtype: asked.append(dtype) or (None, None))
    cpu._kernels.__wrapped__(torch.float32)
    assert asked == ["float32"]
