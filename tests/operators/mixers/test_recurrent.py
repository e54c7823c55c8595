"""The backend `fla` of the mixers that have it: on the stand-in they are what they are without it."""

import sys

import pytest
import torch

import operators
from operators import InputError
from operators.linear import choice, fla
from operators.mixers import recurrent
from operators.testing.cases import run, run_with_gradients
from operators.testing.checks import assert_close
from tests.operators.linear import stand_in
from tests.operators.mixers.drawn import image, make

ORDERS = {"orders": ["row", "col_r"]}
CASES = [
    ("ssd", {**ORDERS, "state_dim": 3, "conv": 2}),
    ("hydra", {"state_dim": 3}),
    ("mamba3", {**ORDERS, "state_dim": 4}),
    ("log_linear", {**ORDERS, "state_dim": 64, "levels": 5}),
    ("gla", ORDERS),
    ("gated_deltanet", ORDERS),
    ("kda", ORDERS),
    ("deltaproduct", {**ORDERS, "steps": 1}),
    ("deltanet", ORDERS),
    ("deltaproduct", ORDERS),
    ("deltaproduct", {**ORDERS, "steps": 3, "gated": False}),
]
NAMES = list(dict.fromkeys(name for name, _ in CASES))
HALF_ONLY = CASES[-3:]


def installed(monkeypatch):
    """The stand-in, for CPU tensors too; a list of what was asked of it."""
    asked = []
    stand_in.install(monkeypatch)
    monkeypatch.setattr(fla, "refusal", lambda problem, device, dtype: asked.append((problem, dtype)))
    return asked


@pytest.mark.parametrize(("name", "params"), CASES, ids=str)
def test_on_the_stand_in_outputs_and_gradients_are_those_of_the_reference(monkeypatch, name, params):
    asked = installed(monkeypatch)
    dtype, tolerance = (torch.float16, 5e-3) if (name, params) in HALF_ONLY else (torch.float32, 1e-5)
    mixer = make(name, heads=2, backend="fla", **params).to(dtype)
    reference = make(name, heads=2, backend="reference", **params)
    reference.load_state_dict(mixer.state_dict())
    x = image(3, 5).to(dtype)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(reference, x.double())
    assert set(asked) == {(mixer.core.problem, dtype)}
    assert_close(y.double(), expected, tolerance, "y")
    for key, gradient in gradients.items():
        assert_close(gradient.double(), wanted[key], 10 * tolerance, key)


@pytest.mark.parametrize("name", ["ssd", "hydra", "log_linear", "kda"])
def test_under_autocast_kernels_multiply_in_its_type(monkeypatch, name):
    asked = installed(monkeypatch)
    params = {"state_dim": 64} if name == "log_linear" else {}
    mixer, x = make(name, heads=2, backend="fla", **params).float(), image(3, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = run(mixer, x)
    assert {dtype for _, dtype in asked} == {torch.bfloat16}
    reference = make(name, heads=2, backend="reference", **params)
    assert_close(y.double(), run(reference, x.double()), 0.05, "y")


@pytest.mark.parametrize("name", NAMES)
def test_on_the_cpu_auto_is_chunked_and_imports_nothing(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "fla", None)
    auto, chunked = make(name), make(name, backend="chunked")
    assert auto.backend == chunked.backend == "chunked"
    assert torch.equal(run(auto, image(3, 5)), run(chunked, image(3, 5)))
    assert tuple(auto.core.availability()) == auto.card.backends == choice.BACKENDS


@pytest.mark.parametrize("name", NAMES)
def test_cpu_tensors_are_refused(name):
    with pytest.raises(InputError, match=r"^backend='fla' cannot serve this call: it serves CUDA .* on cpu; use auto"):
        run(make(name, backend="fla"), image(3, 5))


@pytest.mark.parametrize("name", ["gla", "hydra", "kda"])
def test_the_backend_is_that_of_the_last_call(monkeypatch, name):
    """Under mixed precision the parameters are float32 and the call is not."""

    def only_half(backend, problem, device, dtype):
        assert (backend, problem, device.type) == ("auto", mixer.core.problem, "cpu")
        return "fla" if dtype == torch.bfloat16 else "chunked"

    mixer, x = make(name).float(), image(3, 5).float()
    monkeypatch.setattr(recurrent, "serving", only_half)
    assert mixer.backend == "chunked"
    with torch.autocast("cpu", torch.bfloat16):
        run(mixer, x)
    assert mixer.backend == "fla"
    run(mixer, x)
    assert mixer.backend == "chunked"


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # importing fla may warn of its own parts
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_on_cuda_under_autocast_auto_takes_the_kernels(name):
    reason = choice.availability()["fla"]
    if reason is not None:
        pytest.skip(reason)
    x = image(9, 13, width=128).float().cuda()
    results = {}
    for backend in ("auto", "reference"):
        torch.manual_seed(0)
        mixer = operators.create(name, 128, heads=2, backend=backend, shell=operators.BARE).cuda()
        leaf = x.clone().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16):
            y = mixer(leaf)
        (y * x).sum().backward()
        assert mixer.backend == ("fla" if backend == "auto" else "reference")
        results[backend] = (y.detach(), leaf.grad)
    for quantity, computed, expected in zip(("y", "dx"), *results.values(), strict=True):
        assert_close(computed, expected, 0.05, quantity)
