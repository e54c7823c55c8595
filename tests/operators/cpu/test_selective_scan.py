"""The compiled code: its threads, the same code as plain Python, and how it is compiled."""

import pytest
import torch

from operators.cpu import selective_scan, sharing
from operators.scan import cpu, ops
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

    def plain(name, tasks, work, **fields):
        kernel = getattr(selective_scan, name)
        arrays = {key: value.detach().numpy() if hasattr(value, "numpy") else value for key, value in fields.items()}
        kernel.py_func(kernel.record(**arrays), 0, tasks)

    monkeypatch.setattr(ops.OP, "run", plain)
    for name, found in results(given, backend="cpu", reverse=reverse).items():
        assert_close(found, expected[name], 1e-6 if dtype == torch.float32 else 1e-14, name)


def test_threads_change_no_bit(monkeypatch):
    given = arguments(batch=3, channels=70, size=8, length=200, options="initial", dtype=torch.float32)
    asked, found = asked_threads(monkeypatch), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append(results(given, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert asked == [1, 1, 2, 2, 3, 3, 5, 5]  # forward and backward
    for other in found[1:]:
        for name, value in other.items():
            assert torch.equal(value, found[0][name]), name


def test_a_small_scan_takes_no_thread(monkeypatch):
    asked = asked_threads(monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    results(arguments(batch=4, length=70), backend="cpu")
    assert asked == [1, 1]


def asked_threads(monkeypatch):
    """A list to which every pass adds its number of threads."""
    asked, run = [], sharing.run
    monkeypatch.setattr("operators.cpu.kernel.run", lambda *given: (asked.append(given[-1]), run(*given))[1])
    return asked


@pytest.mark.parametrize("members", [1, 15, 16, 17, 63, 64, 65, 100, 129, 193, 257, 1000])
def test_blocks_cover_a_group(members):
    blocks, lanes = cpu._blocks(members)
    assert lanes % cpu.VECTOR == 0
    assert lanes <= cpu.BLOCK
    places = [selective_scan._place.py_func(task, 2 * members, 2, lanes) for task in range(3 * 2 * blocks)]
    channels = [(image, first + v) for image, _, _, first, n in places for v in range(n)]
    assert channels == [(image, channel) for image in range(3) for channel in range(2 * members)]
