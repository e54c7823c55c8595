"""What torch may ask of the scan: derivatives, registration, compilation, mixed precision, bounded memory."""

import pytest
import torch

from operators import InputError
from operators.scan import chunked, ops, selective_scan
from operators.testing.checks import assert_close
from tests.operators.scan.cases import ENGINES, arguments, fixed, results


def function(given, **options):
    """The scan of `given` as a function of its tensors."""
    names = list(given)
    return lambda *tensors: selective_scan(**dict(zip(names, tensors, strict=True)), **options)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_equal_differences(monkeypatch, backend, reverse):
    monkeypatch.setattr(chunked, "CHUNK", 2)
    monkeypatch.setattr("operators.scan.cpu.CHUNK", 2)
    given = arguments(channels=2, size=2, length=3, groups=2, options="all", softplus=True)
    scan = function(given, backend=backend, reverse=reverse, delta_softplus=True, return_last_state=True)
    assert torch.autograd.gradcheck(scan, list(given.values()))


def test_the_reference_has_second_derivatives():
    given = arguments(batch=1, channels=2, size=2, length=3)
    assert torch.autograd.gradgradcheck(function(given, backend="reference"), list(given.values()))


@pytest.mark.parametrize("backend", ENGINES)
def test_second_derivatives_are_refused_elsewhere(backend):
    given = arguments()
    y = selective_scan(**given, backend=backend)
    (gradient,) = torch.autograd.grad(y.sum(), given["delta"], create_graph=True)
    with pytest.raises(InputError, match="second derivatives with backend='reference' only"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, in jvp
@pytest.mark.parametrize("backend", ENGINES)
def test_forward_mode_is_refused_where_torch_would_give_zero(backend):
    given = fixed(arguments())

    def scan(u, served):
        return selective_scan(**given | {"u": u}, backend=served)

    u = (given["u"],)
    with pytest.raises(InputError, match=f"'{backend}' has no forward-mode derivatives, .* use auto or reference"):
        torch.func.jvp(lambda u: scan(u, backend), u, u)
    y, slope = torch.func.jvp(lambda u: scan(u, "reference"), u, u)
    assert_close(slope, y, 1e-12, "derivative along u of what is linear in u")


@pytest.mark.parametrize(("backend", "channels_last"), [("cpu", True), ("chunked", False)])
def test_both_operators_are_registered_as_torch_wants(backend, channels_last):
    given = arguments(channels=4, length=5, groups=2, options="initial", channels_last=channels_last)
    inputs = (*given.values(), False, backend)
    torch.library.opcheck(ops.scan, inputs)
    plain = [tensor.detach() for tensor in given.values()]
    y, last, states = ops.scan(*plain, False, backend)
    torch.library.opcheck(ops.scan_backward, (*plain[:5], states, y, last, False, backend))


@pytest.mark.parametrize("kind", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ENGINES)
def test_it_compiles_without_a_graph_break(kind, backend):
    given = arguments(length=70, options="all")
    torch._dynamo.reset()
    scan = function(given, backend=backend, return_last_state=True)
    compiled = torch.compile(scan, fullgraph=True, backend=kind)
    found, expected = (
        (y, last, *torch.autograd.grad((y * y).sum() + last.sum(), list(given.values())))
        for y, last in (call(*given.values()) for call in (compiled, scan))
    )
    for name, value, right in zip(("y", "last", *given), found, expected, strict=True):
        assert_close(value, right, 1e-12, name)


def test_meta_tensors_pass():
    given = {name: tensor.to("meta") for name, tensor in fixed(arguments(length=70, channels_last=True)).items()}
    y = selective_scan(**given)
    assert y.is_meta
    assert y.stride() == given["u"].stride()


@pytest.mark.parametrize("backend", ["cpu", "chunked", "reference"])
def test_half_precision_computes_in_float32_under_autocast_too(backend):
    given = {name: tensor.detach().bfloat16().requires_grad_() for name, tensor in arguments(length=70).items()}
    wide = {name: tensor.detach().float() for name, tensor in given.items()}
    expected = selective_scan(**wide, backend=backend)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y, last = selective_scan(**given, backend=backend, return_last_state=True)
        assert y.dtype == torch.bfloat16
        assert last.dtype == torch.float32
        assert torch.equal(y, expected.bfloat16())
        gradients = torch.autograd.grad(y.float().sum(), list(given.values()))
        assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}


def test_one_float64_tensor_makes_the_recurrence_float64():
    given = fixed(arguments(length=70))
    u = given["u"].float()
    y, last = selective_scan(**given | {"u": u}, return_last_state=True)
    assert (y.dtype, last.dtype) == (torch.float32, torch.float64)
    assert_close(last, selective_scan(**given, return_last_state=True)[1], 1e-14, "last")


@pytest.mark.parametrize("backend", ENGINES)
def test_the_gradient_of_the_last_state_alone(backend):
    given = arguments(length=70, options="initial")
    found, expected = (
        torch.autograd.grad(selective_scan(**given, backend=b, return_last_state=True)[1].sum(), given["initial_state"])
        for b in (backend, "reference")
    )
    assert_close(found[0], expected[0], 1e-12, "d initial_state")


@pytest.mark.parametrize(("backend", "keeps_all"), [("cpu", False), ("chunked", False), ("reference", True)])
def test_only_the_reference_keeps_every_state(backend, keeps_all):
    batch, channels, size, length = 2, 32, 16, 256
    given = arguments(batch, channels, size, length, dtype=torch.float32)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.__setitem__((t.data_ptr(), t.shape), t.numel()), t)[1], lambda t: t
    ):
        results(given, backend=backend)
    everything = batch * channels * size * length
    assert (sum(kept.values()) > everything) == keeps_all
    if not keeps_all:
        inputs = sum(tensor.numel() for tensor in given.values())
        assert sum(kept.values()) <= 3 * inputs + everything / chunked.CHUNK
