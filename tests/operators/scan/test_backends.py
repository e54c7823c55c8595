"""Which backend serves a scan, what is refused and why, and the authors' kernels behind a stand-in."""

import importlib
import sys
import types

import pytest
import torch

from operators import InputError, scan
from operators.scan import chunked, cuda, selective_scan
from operators.testing.checks import assert_close
from tests.operators.scan.cases import arguments, fixed, results

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (2, 3), r"takes u \(B, D, L\) and A \(D, S\) with D, L, S > 0, not \(2, 3\) and \(3, 4\)"),
        ("u", (2, 3, 0), r"D, L, S > 0, not \(2, 3, 0\)"),
        ("u", (2, 0, 9), r"D, L, S > 0, not \(2, 0, 9\)"),
        ("A", (3,), r"D, L, S > 0, not \(2, 3, 9\) and \(3,\)"),
        ("A", (3, 0), r"D, L, S > 0"),
        ("A", (4, 4), r"takes A of shape \(3, 4\), not \(4, 4\)"),
        ("delta", (2, 3, 8), r"takes delta of shape \(2, 3, 9\), not \(2, 3, 8\)"),
        ("z", (2, 9, 3), r"takes z of shape \(2, 3, 9\), not \(2, 9, 3\)"),
        ("D", (1, 3), r"takes D of shape \(3,\), not \(1, 3\)"),
        ("delta_bias", (4,), r"takes delta_bias of shape \(3,\), not \(4,\)"),
        ("initial_state", (2, 4, 3), r"takes initial_state of shape \(2, 3, 4\), not \(2, 4, 3\)"),
        ("B", (), r"takes B of shape \(2, 4, 9\) or \(2, groups, 4, 9\), not \(\)"),
        ("B", (3, 4), r"takes B of shape \(2, 4, 9\) or \(2, groups, 4, 9\), not \(3, 4\)"),
        ("C", (2, 9, 4), r"takes C of shape \(2, 4, 9\) or \(2, groups, 4, 9\), not \(2, 9, 4\)"),
        ("C", (2, 0, 4, 9), r"takes C of shape .*, not \(2, 0, 4, 9\)"),
        ("B", (2, 2, 4, 9), r"the 2 groups of B must divide the 3 channels"),
        ("B", (2, 3, 4, 9), r"takes B and C of one shape, not \(2, 3, 4, 9\) and \(2, 4, 9\)"),
    ],
)
def test_wrong_shapes_are_refused(name, shape, message):
    given = fixed(arguments(options="all"))
    with pytest.raises(InputError, match=message) as refused:
        selective_scan(**given | {name: torch.zeros(shape, dtype=torch.float64)})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["u", "A", "initial_state"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e5m2, torch.bool], ids=str)
def test_wrong_types_are_refused(name, dtype):
    given = fixed(arguments(options="all"))
    with pytest.raises(InputError, match=f"takes float16, bfloat16, float32, float64; {name} is {dtype}"):
        selective_scan(**given | {name: given[name].abs().to(dtype)})


def test_tensors_on_several_devices_are_refused():
    given = fixed(arguments())
    with pytest.raises(InputError, match="u is on cpu, B on meta"):
        selective_scan(**given | {"B": given["B"].to("meta")})


def test_unknown_backend_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"allowed are auto, cuda, mamba_ssm, .*; did you mean 'chunked'\?"):
        selective_scan(**fixed(arguments()), backend="chunk")


@pytest.mark.parametrize("backend", ["cuda", "mamba_ssm"])
def test_backends_for_cuda_are_refused_on_cpu_tensors(backend):
    message = f"backend='{backend}' cannot serve this scan: it serves CUDA tensors only, and these are on cpu"
    with pytest.raises(InputError, match=message):
        selective_scan(**fixed(arguments()), backend=backend)


@pytest.mark.parametrize(
    ("asked", "device", "served"),
    [
        ("auto", "cpu", "cpu"),
        ("auto", "meta", "cpu"),
        ("auto", "mps", "chunked"),
        ("cpu", "cpu", "cpu"),
        ("chunked", "cpu", "chunked"),
        ("chunked", "cuda", "chunked"),
        ("reference", "cuda", "reference"),
    ],
)
def test_serving(asked, device, served):
    assert scan.serving(asked, torch.device(device), torch.float32) == served


def test_cpu_kernels_serve_no_other_device():
    with pytest.raises(InputError, match="CPU tensors only, and these are on cuda; use auto, chunked or reference"):
        scan.serving("cpu", CUDA, torch.float32)


def test_on_cuda_the_authors_kernels_serve_what_they_can(monkeypatch):
    monkeypatch.setattr(cuda, "_trial", lambda device: None)
    assert scan.serving("auto", CUDA, torch.float32) == "mamba_ssm"
    assert scan.serving("cuda", CUDA, torch.float32) == "mamba_ssm"
    for served, why in ((torch.float64, False), (torch.float32, True)):
        assert scan.serving("auto", CUDA, served, states=why) == "chunked"
    with pytest.raises(InputError, match="it has no float64"):
        scan.serving("mamba_ssm", CUDA, torch.float64)
    with pytest.raises(InputError, match="no initial state and gives the last one no gradient"):
        scan.serving("mamba_ssm", CUDA, torch.float32, states=True)
    monkeypatch.setattr(cuda, "_trial", lambda device: "no kernel image")
    assert scan.serving("auto", CUDA, torch.float32) == "chunked"
    with pytest.raises(InputError, match="cannot serve this scan: no kernel image"):
        scan.serving("mamba_ssm", CUDA, torch.float32)


def test_availability(monkeypatch):
    found = scan.availability()
    assert tuple(found) == scan.BACKENDS
    assert [found[name] for name in ("chunked", "cpu", "reference")] == [None] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert scan.availability()["mamba_ssm"] == "it serves CUDA tensors only, and there is no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "_trial", lambda device: f"tried on {device}")
    assert scan.availability()["mamba_ssm"] == "tried on cuda"


class StandIn(torch.autograd.Function):
    """What the authors' function is, on any device: a `Function` without a gradient of the last state."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, return_last_state):
        y, last, states = chunked.forward(u, delta, A, B, C, u.new_zeros(*u.shape[:2], A.shape[1]), False)
        ctx.save_for_backward(u, delta, A, B, C, states)
        ctx.last = last
        return (y, last) if return_last_state else y

    @staticmethod
    def backward(ctx, grad_y, *_):
        found = chunked.backward(*ctx.saved_tensors, grad_y, torch.zeros_like(ctx.last), False)
        return (*found[:5], None)


def stand_in(u, delta, A, B, C, return_last_state=False):
    return StandIn.apply(u, delta, A, B, C, return_last_state)


def install(monkeypatch, function):
    module = types.SimpleNamespace(selective_scan_fn=function)
    monkeypatch.setattr(importlib, "import_module", lambda name: module)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [None, 2])
def test_through_the_authors_interface_the_scan_is_the_same(monkeypatch, reverse, groups):
    install(monkeypatch, stand_in)
    monkeypatch.setattr(cuda, "refusal", lambda device, dtype: None)
    given = {k: v for k, v in arguments(channels=4, groups=groups, options="all").items() if k != "initial_state"}
    weights = torch.randn(2, 4, 9, dtype=torch.float64)
    found, expected = (
        (y.detach(), *torch.autograd.grad((y * weights).sum(), list(given.values())))
        for y in (selective_scan(**given, backend=backend, reverse=reverse) for backend in ("mamba_ssm", "reference"))
    )
    for name, value, right in zip(("y", *given), found, expected, strict=True):
        assert_close(value, right, 1e-12, name)


def test_the_engine_itself_gives_the_last_state(monkeypatch):
    install(monkeypatch, stand_in)
    given = fixed(arguments())
    b, c = given["B"][:, None], given["C"][:, None]
    _, last, states = cuda.forward(given["u"], given["delta"], given["A"], b, c, torch.zeros(2, 3, 4), False)
    assert_close(last, selective_scan(**given, return_last_state=True, backend="reference")[1], 1e-12, "last")
    assert states.shape == (2, 0, 4, 3)


def test_the_trial_runs_forward_and_backward_even_without_gradients(monkeypatch):
    asked = []
    install(monkeypatch, lambda *tensors: asked.append(tensors[0].requires_grad) or stand_in(*tensors))
    with torch.inference_mode():
        assert cuda._trial.__wrapped__(CPU) is None
    assert asked == [True]


@pytest.mark.parametrize("error", [RuntimeError, TypeError, AttributeError])
def test_a_trial_that_fails_is_a_reason_in_one_line(monkeypatch, error):
    def fail(*tensors):
        raise error("no kernel image\n  is available")

    install(monkeypatch, fail)
    assert cuda._trial.__wrapped__(CPU) == "no kernel image is available"


def test_a_missing_package_is_a_reason(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert (
        cuda._trial.__wrapped__(CUDA) == "it does not import (No module named 'mamba_ssm.ops.selective_scan_interface')"
    )


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("reverse", [False, True])
def test_chunked_on_cuda_equals_the_reference_on_cpu(reverse):
    given = arguments(channels=6, size=16, length=200, groups=2, options="all")
    expected = results(given, backend="reference", reverse=reverse)
    moved = {name: tensor.detach().cuda().requires_grad_() for name, tensor in given.items()}
    y, last = selective_scan(**moved, return_last_state=True, backend="chunked", reverse=reverse)
    assert_close(y.cpu(), expected["y"], 1e-10, "y")
    assert_close(last.cpu(), expected["last"], 1e-10, "last")
    (y.sum() + last.sum()).backward()
    y, last = selective_scan(**given, return_last_state=True, backend="reference", reverse=reverse)
    (y.sum() + last.sum()).backward()
    for name, tensor in given.items():
        assert_close(moved[name].grad.cpu(), tensor.grad, 1e-10, name)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # importing mamba_ssm may warn of its own parts
@gpu
@pytest.mark.parametrize("reverse", [False, True])
def test_the_authors_kernels_equal_the_reference(reverse):
    reason = scan.availability()["mamba_ssm"]
    if reason is not None:
        pytest.skip(reason)
    given = arguments(channels=64, size=16, length=200, groups=2, dtype=torch.float32)
    moved = {name: tensor.detach().cuda().requires_grad_() for name, tensor in given.items()}
    assert scan.serving("auto", CUDA, torch.float32) == "mamba_ssm"
    y = selective_scan(**moved, reverse=reverse)
    y.sum().backward()
    expected = selective_scan(**given, backend="reference", reverse=reverse)
    expected.sum().backward()
    assert_close(y.cpu(), expected, 1e-4, "y")
    for name, tensor in given.items():
        assert_close(moved[name].grad.cpu(), tensor.grad, 1e-4, name)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A function that installs modules, given as names of files and their text, for the length of a test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def install_files(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()

    yield install_files
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mamba_ssm", cuda.KERNEL):
            del sys.modules[name]


FALLING_BACK = """
try:
    import selective_scan_cuda
except ImportError:
    selective_scan_cuda = None


def selective_scan_fn(u, delta, A, B, C):
    return u * delta * A.sum() * (B + C).sum()
"""
MAMBA = {"mamba_ssm/__init__.py": "", "mamba_ssm/ops/__init__.py": ""}
INTERFACE = "mamba_ssm/ops/selective_scan_interface.py"


@pytest.mark.parametrize("interface", [FALLING_BACK, "import selective_scan_cuda"], ids=["falls back", "fails"])
def test_a_mamba_ssm_that_was_built_without_its_kernel_says_how_to_build_it(packages, monkeypatch, interface):
    packages(MAMBA | {INTERFACE: interface})
    reason = cuda._trial.__wrapped__(CPU)
    assert "without its scan kernel selective_scan_cuda" in reason
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install" in reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert scan.availability()["mamba_ssm"].endswith(f"there is no CUDA device; and {reason}")


def test_a_kernel_that_does_not_load_is_no_silent_fall_back(packages):
    kernel = {"selective_scan_cuda.py": "raise ImportError('undefined\\n symbol: _ZN3c10')"}
    packages(MAMBA | {INTERFACE: FALLING_BACK} | kernel)
    assert cuda._trial.__wrapped__(CPU) == "it does not import (undefined symbol: _ZN3c10)"


def test_a_mamba_ssm_with_its_kernel_is_tried(packages):
    packages(MAMBA | {INTERFACE: FALLING_BACK, "selective_scan_cuda.py": ""})
    assert cuda._trial.__wrapped__(CPU) is None


@pytest.mark.parametrize("error", ["OSError('libcudart.so.13:\\n cannot open')", "RuntimeError('0 active drivers')"])
def test_a_package_whose_binaries_do_not_fit_is_a_reason(packages, error):
    packages(MAMBA | {INTERFACE: f"raise {error}", "selective_scan_cuda.py": ""})
    reason = cuda._trial.__wrapped__(CPU)
    assert reason.startswith("it does not import (")
    assert "\n" not in reason
