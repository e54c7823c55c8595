"""Kernels of an unbounded plane: exact in pieces, in bounded memory, and for every coefficient."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

import operators
from operators.pde import plane, propagate
from operators.testing.checks import assert_close
from tests.operators.pde import definition

FORCINGS = ("initial", "constant", "steady")
GRID = (5, 8)


def given(tensor, *, scale=1.0, drift=1.0):
    rng = np.random.default_rng(3)
    k = scale * np.array([[0.3, 0.9], [1.4, 0.2]])
    cross = 0.6 * np.sqrt(k.prod(-1))
    full = np.stack([k[:, 0], cross, cross, k[:, 1]], -1).reshape(2, 2, 2)
    return {
        "diffusion": {"diagonal": k, "full": full}[tensor],
        "velocity": drift * rng.normal(size=(2, 2)),
        "reaction": np.array([-0.6, -2.0]),
    }


@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("tensor", ["diagonal", "full"])
@pytest.mark.parametrize(("scale", "drift"), [(1, 1), (40, 6), (0.01, 1)], ids=["short", "long", "thin"])
def test_kernels_are_those_of_the_definition(forcing, tensor, scale, drift):
    coefficients = given(tensor, scale=scale, drift=drift)
    field = np.random.default_rng(0).normal(size=(2, *GRID))
    expected = definition.propagate(field, **coefficients, boundary="absorbing", forcing=forcing)
    tensors = {name: torch.as_tensor(value) for name, value in coefficients.items()}
    out = propagate(torch.as_tensor(field), **tensors, boundary="absorbing", forcing=forcing)
    assert_close(out, torch.as_tensor(expected), 1e-9, "output")


@pytest.mark.parametrize(("forcing", "tensor"), [("initial", "full"), ("constant", "diagonal"), ("steady", "full")])
def test_pieces_have_the_values_and_gradients_of_the_whole(monkeypatch, forcing, tensor):
    coefficients = {name: torch.as_tensor(value) for name, value in given(tensor).items()}
    field, weight = torch.randn(2, 2, 2, *GRID, dtype=torch.float64)
    found, calls, rows = {}, [], plane._rows
    monkeypatch.setattr(plane, "_rows", lambda *args: calls.append(1) or rows(*args))
    for size in (2**40, 2**19):
        monkeypatch.setattr(plane, "PIECE_BYTES", size)
        leaves = [tensor.clone().requires_grad_() for tensor in (field, *coefficients.values())]
        calls.clear()
        out = propagate(
            leaves[0], **dict(zip(coefficients, leaves[1:], strict=True)), boundary="absorbing", forcing=forcing
        )
        pieces = len(calls)
        found[size] = [out, *torch.autograd.grad((out * weight).sum(), leaves)], pieces
    (whole, once), (pieces, many) = found.values()
    assert once == 1 < many
    for name, a, b in zip(("output", "field", *coefficients), pieces, whole, strict=True):
        assert_close(a, b, 1e-10, name)


@pytest.mark.parametrize("velocity", [70.25, -70.25, 3000.5, 1e7])
def test_what_moves_far_away_rings_less_and_less(velocity):
    """Content of a pixel that moves by a fraction is a sinc, which the image still sees from far away."""
    v = torch.tensor([velocity], dtype=torch.float64, requires_grad=True)
    kernel = plane.axis_plane_kernel(6, None, v, v)[0]
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    expected = torch.sinc(offsets - v) if abs(velocity) < plane.UNSEEN else torch.zeros(11, dtype=torch.float64)
    assert torch.allclose(kernel, expected, rtol=0, atol=1e-11)
    (gradient,) = torch.autograd.grad(kernel[3], v)
    if abs(velocity) < plane.UNSEEN:
        (right,) = torch.autograd.grad(torch.sinc(offsets - v)[3], v)
        assert torch.allclose(gradient, right, rtol=0, atol=1e-9)


@pytest.mark.parametrize("forcing", FORCINGS)
def test_a_mixer_never_refuses_what_it_drew(forcing):
    """At 512² and 256², where whether it did was the luck of the draw: eight seeds."""
    side = 512 if forcing == "initial" else 256
    for seed in range(8):
        torch.manual_seed(seed)
        core = operators.create("pde_ssm", 16, grid=(side, side), forcing=forcing, boundary="absorbing").core
        made = core.solve_coefficients(torch.zeros(1, 1, 1, 16), None)
        coefficients = core._in_pixels(made, side, side)
        if forcing == "initial":
            kernel = plane.axis_plane_kernel(side, coefficients.kyy, coefficients.vy, core.skip.detach())
            assert torch.isfinite(kernel).all()
        else:
            assert not plane.reaches_too_far(coefficients, side, side, forcing, core.skip)


SPOILED = list(itertools.product(("log_length", "velocity", "readout"), (float("nan"), float("inf"))))


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet", "absorbing"])
@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("condition", ["none", "input"])
def test_coefficients_that_are_not_finite_show_in_the_output(boundary, forcing, condition):
    for name, value in SPOILED:
        mixer = operators.create(
            "pde_ssm", 8, grid=(4, 5), boundary=boundary, forcing=forcing, condition=condition, groups=4
        )
        with torch.no_grad():
            getattr(mixer.core, name).view(-1)[0] = value
        x = torch.randn(2, 4, 5, 8)
        assert not torch.isfinite(mixer(x)).all(), (name, value)
        mixer.inspect(x)


def test_the_reference_shows_them_too():
    mixer = operators.create("pde_ssm", 8, grid=(3, 4), boundary="absorbing", method="reference")
    for value in (float("nan"), float("inf")):
        with torch.no_grad():
            mixer.core.velocity.view(-1)[0] = value
        assert not torch.isfinite(mixer(torch.randn(1, 3, 4, 8))).all()


def test_a_velocity_beyond_computing_shows_in_the_output_of_a_mixer():
    mixer = operators.create("pde_ssm", 8, grid=(4, 5), boundary="absorbing", forcing="constant")
    with torch.no_grad():
        mixer.core.velocity.view(-1)[0] = 1e7
    assert not torch.isfinite(mixer(torch.randn(1, 4, 5, 8))).all()


MEASURED = """
import torch, operators

def peak():  # of this program alone: what `getrusage` says is at least what its parent took
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

mixer = operators.create("pde_ssm", 8, grid=(96, 96), forcing="constant", boundary="absorbing", tensor="full")
x = torch.randn(1, 96, 96, 8)
before = peak()
mixer(x).square().mean().backward()
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /proc")
def test_training_takes_bounded_memory():
    """Without pieces one step at 96² takes a gigabyte: 32 kernels of 54,000 wave numbers."""
    ran = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 700
