"""The compiled products: against a plain sum in float64, for every shape of memory and number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import operators
from operators import BARE, InputError
from operators.cpu import sharing
from operators.pde import propagators, separable_op
from operators.pde.boundary import BOUNDARIES
from operators.pde.propagators import axis_matrix
from operators.pde.separable_op import separable
from operators.testing.checks import assert_close
from operators.testing.counter import count_macs

ROOT = Path(operators.__file__).parents[1]
# Sides around the tiles of 4 and the steps of 8; channels around the vectors of 16; more states than one.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 4, 4, 1),
    (3, 7, 5, 16, 2),
    (2, 8, 8, 17, 4),
    (1, 9, 16, 33, 1),
    (5, 1, 12, 3, 3),
    (2, 17, 2, 48, 2),
]


def plain(u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor) -> Tensor:
    return skip * u + torch.einsum("sikd,sjld,bkld->bijd", rows, columns, u)


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[tuple[Tensor, ...], Tensor]:
    """Field, rows, columns, skip; and a gradient of the output."""
    batch, height, width, channels, states = shape
    sizes = [
        (batch, height, width, channels),
        (states, height, height, channels),
        (states, width, width, channels),
        (channels,),
    ]
    inputs = tuple(torch.randn(size, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes)
    return inputs, torch.randn(sizes[0], dtype=torch.float64).to(dtype)


def results(y: Tensor, inputs: tuple[Tensor, ...], gradient: Tensor) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(y, inputs, gradient)
    return {"output": y.detach(), **dict(zip(("d field", "d rows", "d columns", "d skip"), gradients, strict=True))}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=str)
def test_equals_the_plain_sum(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    inputs, gradient = drawn(shape, dtype)
    found = results(separable(*inputs), inputs, gradient)
    wide = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
    for name, expected in results(plain(*wide), wide, gradient.double()).items():
        assert found[name].dtype == dtype
        assert found[name].is_contiguous()
        assert_close(found[name].double(), expected, tolerance, f"{name} of {shape}")


@pytest.mark.parametrize("channels", [16, 33, 80])
def test_blocks_taken_together_change_no_bit(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, gradient = drawn((2, 5, 6, channels, 2), torch.float32)
    found = []
    for bundle in (1, 2, 4):

        def bundles(blocks: int, parts: int, bytes_of_block: int, work: int, bundle: int = bundle) -> tuple[int, int]:
            return bundle, -(-blocks // bundle) * parts

        monkeypatch.setattr(separable_op.OP, "bundles", bundles)
        monkeypatch.setattr(separable_op.OP, "threads", lambda tasks, work: 2)
        found.append(results(separable(*inputs), inputs, gradient))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
        assert torch.equal(value, found[2][name]), name


def test_blocks_are_taken_together_while_they_fit_and_threads_have_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    work = 1 << 30
    assert separable_op.OP.bundles(24, 8, 1 << 16, work) == (4, 48)
    assert separable_op.OP.bundles(24, 8, 1 << 19, work) == (2, 96)
    assert separable_op.OP.bundles(24, 8, 1 << 21, work) == (1, 192)
    assert separable_op.OP.bundles(24, 1, 1 << 16, work) == (1, 24)
    assert separable_op.OP.bundles(3, 8, 1 << 16, work) == (2, 16)
    assert separable_op.OP.bundles(3, 8, 1 << 16, 1) == (4, 8)


@pytest.mark.parametrize("layout", ["half of the channels", "channels first", "one for all", "transposed"])
def test_any_layout_in_memory_gives_the_same(layout: str) -> None:
    whole = torch.randn(3, 6, 6, 20, dtype=torch.float64)
    field = {
        "half of the channels": whole[..., 7:17],
        "channels first": whole[..., :10].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "one for all": whole[:1, :1, :1, :10].expand(3, 6, 6, 10),
        "transposed": whole[..., :10].transpose(1, 2),
    }[layout]
    (_, *others), gradient = drawn((3, 6, 6, 10, 2))
    for u, g in ((field, gradient), (gradient, field)):
        inputs = (u.detach().requires_grad_(), *others)
        straight = (u.contiguous().requires_grad_(), *others)
        found = results(separable(*inputs), inputs, g)
        for name, expected in results(plain(*straight), straight, g).items():
            assert_close(found[name], expected, 1e-13, name)


@pytest.mark.parametrize("team", [True, False], ids=["OpenMP's threads", "threads of its own"])
def test_threads_change_no_bit(team: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separable_op.OP, "thread_least", 1)
    if not team:
        monkeypatch.setattr(sharing, "_team", lambda: None)
    elif sharing._team() is None:
        pytest.skip("this process has no GNU OpenMP")
    inputs, gradient = drawn((5, 9, 7, 50, 2), torch.float32)
    before, by_threads = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            by_threads.append(results(separable(*inputs), inputs, gradient))
    finally:
        torch.set_num_threads(before)
    for other in by_threads[1:]:
        for name, value in by_threads[0].items():
            assert torch.equal(value, other[name]), name


FORKS = """
import os, signal, torch
from operators.pde import separable_op as compiled
compiled.OP.thread_least = 1
torch.set_num_threads(2)
inputs = torch.ones(4, 8, 8, 32), torch.ones(1, 8, 8, 32), torch.ones(1, 8, 8, 32), torch.ones(32)
assert compiled.separable(*inputs)[0, 0, 0, 0] == 65
child = os.fork()
if not child:
    signal.alarm(30)
    y = compiled.separable(*inputs)
    os._exit(0 if y[3, 7, 7, 31] == 65 else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_an_image_and_a_channel_keep_to_themselves() -> None:
    inputs, _ = drawn((3, 5, 6, 20, 2))
    with torch.no_grad():
        before = separable(*inputs)
        inputs[0][1, 2, 3, 17] = float("nan")
        after = separable(*inputs)
    assert after[1, ..., 17].isnan().all()
    after[1, ..., 17] = before[1, ..., 17]
    assert torch.equal(before, after)


def test_is_an_operator_of_torch() -> None:
    torch.library.opcheck(separable, drawn((2, 3, 4, 5, 2))[0])


def test_costs_its_two_products() -> None:
    inputs, _ = drawn((2, 3, 4, 5, 6))
    assert count_macs(separable, *inputs) == 6 * 2 * 5 * (3 * 3 * 4 + 3 * 4 * 4)


def test_no_second_derivatives() -> None:
    inputs, gradient = drawn((1, 2, 3, 4, 1))
    (first,) = torch.autograd.grad(separable(*inputs), inputs[0], gradient.requires_grad_(), create_graph=True)
    with pytest.raises(InputError, match=r"no second derivatives.*separable or fft"):
        torch.autograd.grad(first.sum(), inputs[1])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("length", [2, 5, 8])
@pytest.mark.parametrize("terms", ["both", "diffusion", "velocity"])
def test_matrices_from_the_table_of_waves_are_those_of_the_transform(
    boundary: str, length: int, terms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusion = torch.rand(3, 2, dtype=torch.float64).requires_grad_() if terms != "velocity" else None
    velocity = torch.randn(3, 2, dtype=torch.float64).requires_grad_() if terms != "diffusion" else None
    gain = torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    gradient = torch.randn(3, 2, length, length, dtype=torch.float64)
    inputs = [tensor for tensor in (diffusion, velocity, gain) if tensor is not None]
    found = {}
    for most in (0, length):
        monkeypatch.setattr(propagators, "MOST_BY_PRODUCT", most)
        matrix = axis_matrix(length, boundary, diffusion, velocity, gain)
        found[most] = [matrix, *torch.autograd.grad(matrix, inputs, gradient)]
    for one, other in zip(*found.values(), strict=True):
        assert_close(one, other, 1e-13, f"{boundary}, {length} pixels, {terms}")


@pytest.mark.parametrize(("boundary", "value"), [("periodic", 1.0), ("neumann", 1.0), ("dirichlet", 0.0)])
def test_a_single_pixel_keeps_all_or_nothing(boundary: str, value: float) -> None:
    coefficients = torch.rand(2, 3, 2, dtype=torch.float64)
    if boundary == "dirichlet":  # of the waves that are odd about both edges only one is left, which decays
        value = torch.exp(-(torch.pi**2) * coefficients[0]) * torch.cos(torch.pi * coefficients[1])
    matrix = axis_matrix(1, boundary, coefficients[0], coefficients[1])
    assert_close(matrix.flatten(1), torch.zeros(3, 2, dtype=torch.float64) + value, 1e-14, boundary)


@pytest.mark.parametrize("options", [{"tensor": "full"}, {"forcing": "constant"}, {"condition": "input"}], ids=str)
def test_refuses_what_it_cannot_serve(options: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"pde.method=compiled needs .*; use pde.method=.*fft, .*or auto"):
        operators.create("pde_ssm", 8, grid=(4, 4), method="compiled", **options)


def test_refuses_another_device() -> None:
    mixer = operators.create("pde_ssm", 8, grid=(4, 4), method="compiled", shell=BARE).to("meta")
    with pytest.raises(InputError, match=r"method=compiled runs on the CPU, not on meta; use pde.method=.* or auto"):
        mixer(torch.zeros(1, 4, 4, 8, device="meta"))


def test_is_the_choice_of_auto_on_the_cpu_only() -> None:
    mixer = operators.create("pde_ssm", 8, grid=(8, 8))
    assert mixer.backend == "compiled"
    assert mixer.to("meta").backend == "separable"
