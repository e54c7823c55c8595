"""Derivatives that are asked for by other ways than `backward`: right, or refused in one line."""

import re
import sys

import pytest
import torch
from torch.autograd import forward_ad

import operators
from operators import InputError
from operators.testing.cases import Case, call, tokens
from operators.testing.checks import assert_close
from tests.operators.options import CASES

# Torch's own, when forward mode is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

GRID = (4, 6)
EXACT = 1e-10
REFUSING = ({"method": "compiled"}, {"method": "compiled_fft"})
# The plain scan takes its steps one by one, and its second derivatives take their time.
QUICK = [case for case in CASES if case.params.get("method") != "reference"]


def parts(case):
    """The mixer as a function of its input, an input and a direction, in float64, without gradients of parameters."""
    mixer = case.perturbed(GRID).requires_grad_(False)
    return (lambda x: call(mixer, x)), *(tokens(GRID, dtype=torch.float64, seed=seed) for seed in (2, 5))


def right_or_refused(case, value, expected, name):
    if case.params in REFUSING:
        with pytest.raises(InputError, match="has neither forward-mode derivatives"):
            value()
    else:
        assert_close(value(), expected(), EXACT, name)


def dual(function, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, v))).tangent


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_forward_mode(case):
    """Against the vector-Jacobian product: w · (J v) = v · (Jᵀ w)."""
    function, x, v = parts(case)
    w = tokens(GRID, dtype=torch.float64, seed=6)
    leaf = x.clone().requires_grad_()
    (back,) = torch.autograd.grad(function(leaf), leaf, w)
    for name, value in (
        ("jvp", lambda: torch.func.jvp(function, (x,), (v,))[1]),
        ("dual numbers", lambda: dual(function, x, v)),
        ("dual numbers without gradients", lambda: torch.no_grad()(dual)(function, x, v)),
    ):
        right_or_refused(case, lambda value=value: (value() * w).sum(), lambda: (back * v).sum(), name)


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_torch_func_grad(case):
    function, x, _ = parts(case)
    leaf = x.clone().requires_grad_()
    (back,) = torch.autograd.grad(function(leaf).square().sum(), leaf)
    value = torch.func.grad(lambda x: function(x).square().sum())
    right_or_refused(case, lambda: value(x), lambda: back, "torch.func.grad")


@pytest.mark.parametrize("case", [Case("pde_ssm"), Case("pde_ssm", params={"method": "fft"}), Case("pom")], ids=str)
def test_vmap_and_second_derivatives(case):
    function, x, v = parts(case)
    assert_close(torch.func.vmap(function)(torch.stack([x, v])), torch.stack([function(x), function(v)]), EXACT, "vmap")
    gradient = torch.func.grad(lambda x: function(x).square().sum())
    forward = torch.func.jvp(gradient, (x,), (v,))[1]
    backward = torch.func.vjp(gradient, x)[1](v)[0]  # a Hessian is symmetric
    assert_close(forward, backward, EXACT, "Hessian times a vector, by two ways")


def test_gradients_with_a_tangent_do_not_lose_it():
    """The forward pass lies outside of forward mode, the backward pass within it."""
    mixer = Case("pde_ssm", operators.BARE).build(GRID, dtype=torch.float64)
    x = tokens(GRID, dtype=torch.float64).requires_grad_()
    y = mixer(x)
    with forward_ad.dual_level(), pytest.raises(InputError, match="forward-mode"):
        torch.autograd.grad(y, x, forward_ad.make_dual(torch.ones_like(y), torch.ones_like(y)))


def test_every_custom_operator_refuses_forward_mode():
    """Torch drops tangents at each of them; `CpuOp` asks, and there is no other way to an operator of the zoo."""
    from operators.pde import filter_op, matrices_op, separable_op
    from operators.scan import lines
    from operators.scan import ops as scan_ops
    from operators.wavefront import ops as wavefront_ops

    gated_norm = sys.modules["operators.shell.gated_norm"]
    ops = [module.OP for module in (gated_norm, scan_ops, lines, separable_op, filter_op, matrices_op)]
    ops += [wavefront_ops.LATTICE, wavefront_ops.TWO_STEP, wavefront_ops.ROESSER]
    names = {
        name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "operator_zoo" in name
    }
    names = {name for name in names if not name.endswith("_in_tests")}
    assert names == {f"{op.name}_{suffix}" for op in ops for suffix in ("fwd", "bwd")}
    with forward_ad.dual_level():
        for op in ops:
            for compute in (op._forward, op._backward):
                with pytest.raises(
                    InputError, match=re.escape(f"{op.title} has no forward-mode derivative: {op.instead}")
                ):
                    compute()
