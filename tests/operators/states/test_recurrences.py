"""Recurrences from a state that is not zero: fast paths, whatever their length and direction, and the plain loops."""

import pytest
import torch

from operators import InputError
from operators.linear import choice, decayed, decayed_reference, delta_reference, fla
from operators.linear.delta import delta_macs, delta_rule
from operators.linear.fla import Problem
from operators.testing.cases import noise
from operators.testing.checks import assert_close, assert_differs
from operators.testing.counter import count_macs
from tests.operators.linear import stand_in
from tests.operators.linear.test_decayed import drawn
from tests.operators.linear.test_delta import arguments

KEY, VALUE = 5, 3


def assert_same(fast, plain, given, tolerance=1e-11):
    """Outputs and all gradients agree, that of the state (the last one) among them."""
    leaves = [t.detach().clone().requires_grad_() for t in given]
    y, expected = fast(*leaves), plain(*leaves)
    assert_close(y, expected, tolerance, "y")
    assert_differs(expected, plain(*leaves[:-1], torch.zeros_like(leaves[-1])), 1e-3, "y from zero")
    weights = noise(*y.shape, dtype=y.dtype, seed=6)
    pairs = (torch.autograd.grad(result, leaves, weights) for result in (y, expected))
    for index, (actual, right) in enumerate(zip(*pairs, strict=True)):
        assert_close(actual, right, 100 * tolerance, f"gradient of argument {index}")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("tokens", "heads", "groups", "per_channel"), [(1, 2, 2, True), (35, 4, 2, False), (131, 2, 2, True)]
)
def test_decayed(tokens, heads, groups, per_channel, reverse):
    *given, _ = drawn(tokens, heads, groups, per_channel=per_channel, strength=0.1)
    initial = noise(2, heads, 3, 4, dtype=torch.float64, seed=7)

    def fast(*given):
        return decayed.decayed(*given[:-1], reverse=reverse, backend="chunked", initial=given[-1])

    def plain(*given):
        return decayed_reference.recurrence(*given[:-1], reverse=reverse, initial=given[-1])

    assert_same(fast, plain, [*given, initial])
    counted = [t.detach() for t in (given[0][:1], given[3][:1], initial[:1])]
    assert count_macs(decayed.from_initial, *counted) == decayed.initial_macs(tokens, heads, *initial.shape[2:])


def test_decayed_by_kernels(monkeypatch):
    stand_in.install(monkeypatch)
    monkeypatch.setattr(fla, "refusal", lambda problem, device, dtype: None)
    *given, _ = (t.detach().float() for t in drawn(9, 2, 2))
    initial = noise(2, 2, 3, 4, seed=7)
    y, right = (decayed.decayed(*given, reverse=True, backend=name, initial=initial) for name in ("fla", "reference"))
    assert_close(y, right, 1e-6, "y")


@pytest.mark.parametrize(
    ("tokens", "writes", "decay"), [(1, 1, None), (40, 1, "head"), (90, 1, None), (75, 1, "channel"), (47, 3, "head")]
)
def test_delta(tokens, writes, decay):
    given = [t for t in arguments(tokens, writes=writes, decay=decay) if t is not None]
    initial = noise(2, 2, KEY, VALUE, dtype=torch.float64, seed=7)

    def fast(*given):
        return delta_rule(*given[:-1], initial=given[-1])

    def plain(*given):
        return delta_reference.recurrence(*given[:-1], initial=given[-1])[0]

    assert_same(fast, plain, [*given, initial])
    if decay != "channel":
        counted = count_macs(delta_rule, *(t[:1] for t in given), initial=initial[:1])
        assert counted == delta_macs(tokens, 2, KEY, VALUE, writes=writes, initial=True)
    assert torch.equal(delta_rule(*given, initial=torch.zeros_like(initial)), delta_rule(*given))


def test_kernels_are_refused_a_state_of_the_delta_rule(monkeypatch):
    monkeypatch.setattr(fla, "missing", lambda: None)
    monkeypatch.setattr(fla, "_trial", lambda problem, device, dtype: None)
    problem, cuda = Problem("delta", "head", 2, 4, 3, initial=True), torch.device("cuda")
    assert choice.serving("auto", problem, cuda, torch.bfloat16) == "chunked"
    assert choice.serving("auto", problem._replace(initial=False), cuda, torch.bfloat16) == "fla"
    with pytest.raises(InputError, match="backend='fla' cannot serve this call: it has not been compared from a state"):
        choice.serving("fla", problem, cuda, torch.bfloat16)
