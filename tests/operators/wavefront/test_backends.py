"""Which backend serves a recurrence over a grid, what is refused and why, and the compiled code as plain Python."""

from math import ceil

import pytest
import torch

from operators import InputError, wavefront
from operators.cpu import sharing
from operators.cpu.kernel import Kernel
from operators.cpu.op import LANES
from operators.cpu.wavefront import rows
from operators.testing.checks import assert_close
from operators.wavefront import ops
from tests.operators.wavefront.cases import SCANS, arguments, fixed, results

NAMES = tuple(SCANS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_compiled_code_equals_the_same_code_as_plain_python(monkeypatch, name, dtype):
    """Python also checks that no index leaves its array at the upper end, which compiled code does not."""
    given = arguments(name, (4, 2), batch=1, channels=17, size=1, dtype=dtype)
    monkeypatch.setattr(ops, "SPAN", 3)
    op = SCANS[name][1].compiled
    expected = results(name, given, backend="cpu", bottom=True)
    module = op.load(op.module)
    for made in (module._scan, module._scan_back):  # each has globals of its own
        uncompile(monkeypatch, made.py_func.__globals__)
    uncompile(monkeypatch, vars(module))

    def plain(kernel, tasks, work, **fields):
        arrays = {key: value.detach().numpy() if hasattr(value, "numpy") else value for key, value in fields.items()}
        made = getattr(module, kernel)
        made.py_func(made.record(**arrays), 0, tasks)

    monkeypatch.setattr(op, "run", plain)
    for key, found in results(name, given, backend="cpu", bottom=True).items():
        assert_close(found, expected[key], 1e-6 if dtype == torch.float32 else 1e-14, key)


def uncompile(monkeypatch, names):
    for key, value in list(names.items()):
        if hasattr(value, "py_func") and not isinstance(value, Kernel):
            monkeypatch.setitem(names, key, value.py_func)


@pytest.mark.parametrize("name", NAMES)
def test_threads_change_no_bit(monkeypatch, name):
    given = arguments(name, (16, 16), batch=3, channels=70, size=8, dtype=torch.float32)
    asked, run, found = [], sharing.run, []
    monkeypatch.setattr("operators.cpu.kernel.run", lambda *each: (asked.append(each[-1]), run(*each))[1])
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(results(name, given, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert asked == [1, 1, 3, 3]  # forward and backward
    for key, value in found[1].items():
        assert torch.equal(value, found[0][key]), key


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 100])
def test_blocks_cover_all_channels(channels):
    assert rows.LANES == LANES
    tasks = 2 * ceil(channels / LANES)
    places = [rows.place.py_func(task, channels) for task in range(tasks)]
    found = [(image, first + v) for image, _, first, n in places for v in range(n)]
    assert found == [(image, channel) for image in range(2) for channel in range(channels)]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_refused(name):
    given = fixed(arguments(name))
    rates, shared = SCANS[name][1].compiled.rates, next(key for key in given if key.startswith("B"))
    for key, shape in (("u", (2, 5, 7)), ("u", (2, 0, 7, 3)), (rates, (3,)), (rates, (4, 4)), (shared, (2, 5, 7, 3))):
        with pytest.raises(InputError, match=r"_scan takes ") as refused:
            SCANS[name][0](**given | {key: torch.zeros(shape, dtype=torch.float64)})
        assert "\n" not in str(refused.value)


def test_second_derivatives_of_compiled_code_are_refused():
    given = arguments("lattice", (2, 2))
    y = wavefront.lattice_scan(**given, backend="cpu")
    (first,) = torch.autograd.grad(y.sum(), given["u"], create_graph=True)
    with pytest.raises(InputError, match="second derivatives with the backends diagonals and reference only"):
        torch.autograd.grad(first.sum(), given["dt_row"])


def test_serving(monkeypatch):
    assert wavefront.serving("auto", torch.device("cpu")) == "cpu"
    assert wavefront.serving("auto", torch.device("cuda")) == "diagonals"
    with pytest.raises(InputError, match="CPU tensors only, and these are on cuda; use auto, diagonals or reference"):
        wavefront.serving("cpu", torch.device("cuda"))
    with pytest.raises(InputError, match=r"allowed are auto, diagonals, cpu, reference; did you mean 'diagonals'\?"):
        wavefront.serving("diagonal", torch.device("cpu"))
    monkeypatch.setattr("operators.cpu.availability._REFUSAL", "needs numba, which is not installed")
    assert wavefront.serving("auto", torch.device("cpu")) == "diagonals"
    assert wavefront.availability()["cpu"] == "it needs numba, which is not installed"
    with pytest.raises(InputError, match="cannot serve this scan: it needs numba, which is not installed"):
        wavefront.serving("cpu", torch.device("cpu"))
