"""The end of the common shell: compiled, against torch's operations in float64, and where it does not serve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import vmap

import operators
from operators.cpu import sharing
from operators.shell import gated_norm as gating
from operators.shell.gated_norm import gated_norm, reference
from operators.shell.shell import EPS, Shell
from operators.shell.spec import ShellSpec
from operators.testing.checks import assert_close
from operators.testing.counter import OpCounter

NAMES = ("output", "d y", "d z", "d weight")
# Widths around the vectors of 16, rows around the parts of 16.
SHAPES = [(1, 1, 1, 5), (2, 3, 5, 7), (1, 1, 17, 16), (3, 5, 7, 33), (2, 4, 4, 96)]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gating, "LEAST", 0)


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    inputs = [torch.randn(size, dtype=torch.float64) for size in (shape, shape, shape[-1:])]
    return tuple(one.to(dtype).requires_grad_() for one in inputs), torch.randn(shape, dtype=torch.float64).to(dtype)


def results(out: Tensor, inputs: tuple[Tensor, ...], gradient: Tensor) -> dict[str, Tensor]:
    return dict(zip(NAMES, (out.detach(), *torch.autograd.grad(out, inputs, gradient)), strict=True))


def kind(out: Tensor) -> str:
    return type(out.grad_fn).__name__


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=str)
def test_equals_the_operations_of_torch(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    inputs, gradient = drawn(shape, dtype)
    out = gated_norm(*inputs, EPS)
    assert "gated_norm" in kind(out)
    found = results(out, inputs, gradient)
    wide = tuple(one.detach().double().requires_grad_() for one in inputs)
    for name, expected in results(reference(*wide, EPS), wide, gradient.double()).items():
        assert found[name].dtype == dtype
        assert found[name].is_contiguous()
        assert_close(found[name].double(), expected, tolerance, f"{name} of {shape}")


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e4])
def test_gates_far_open_or_shut_and_rows_of_any_size(scale: float) -> None:
    (y, _, weight), gradient = drawn((1, 1, 7, 16), torch.float32)
    z = torch.linspace(-120, 120, 7 * 16).view(1, 1, 7, 16).requires_grad_()
    inputs = ((y.detach() * scale).requires_grad_(), z, weight)
    found = results(gated_norm(*inputs, EPS), inputs, gradient)
    wide = tuple(one.detach().double().requires_grad_() for one in inputs)
    for name, expected in results(reference(*wide, EPS), wide, gradient.double()).items():
        assert_close(found[name].double(), expected, 2e-6, name)


def test_any_layout_in_memory_gives_the_same() -> None:
    whole = torch.randn(3, 5, 6, 40, dtype=torch.float64)
    weight = torch.randn(10, dtype=torch.float64, requires_grad=True)
    layouts = (
        whole[..., 7:17],
        whole[..., 10:20].transpose(1, 2).contiguous().transpose(1, 2),
        whole[..., ::4],
        whole[:1, :1, :1, :10].expand(3, 5, 6, 10),
    )
    for i, y in enumerate(layouts):
        z, g = layouts[i - 1], layouts[i - 2]
        inputs = (y.detach().requires_grad_(), z.detach().requires_grad_(), weight)
        found = results(gated_norm(*inputs, EPS), inputs, g)
        for name, expected in results(reference(*inputs, EPS), inputs, g).items():
            assert_close(found[name], expected, 1e-13, f"{name} of layout {i}")


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gating.OP, "thread_least", 1)
    inputs, gradient = drawn((3, 5, 7, 20), torch.float32)
    asked: list[int] = []
    run = sharing.run
    monkeypatch.setattr("operators.cpu.kernel.run", lambda *given: (asked.append(given[-1]), run(*given))[1])
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(results(gated_norm(*inputs, EPS), inputs, gradient))
    assert asked == [1, 1, 2, 2, 5, 5]
    for name in NAMES:
        assert torch.equal(found[0][name], found[1][name])
        assert torch.equal(found[0][name], found[2][name])


def test_compiled_code_equals_the_same_code_as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python also checks that no index leaves its array, which compiled code does not."""
    from operators.cpu import gated_norm as kernels

    y, z, g = (np.random.default_rng(i).normal(size=5 * 9) for i in range(3))
    weight = np.linspace(0.5, 1.5, 3)
    for name in ("_scale", "_forward_row", "_backward_row"):
        monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    out, grad_y, grad_z, grad_weight = np.zeros(15), np.zeros(15), np.zeros(15), np.zeros(6)
    common = {"y": y, "z": z, "weight": weight, "eps": EPS, "y_row": 9, "z_row": 6}
    kernels.forward.py_func(kernels.NormForward(**common, out=out), 0, 5)
    written = {"grad_y": grad_y, "grad_z": grad_z, "grad_weight": grad_weight}
    kernels.backward.py_func(kernels.NormBackward(**common, **written, grad_out=g, grad_row=3, rows=5, parts=2), 0, 2)
    rows = [torch.from_numpy(x).as_strided((5, 3), (step, 1)) for x, step in ((y, 9), (z, 6), (g, 3))]
    inputs = (rows[0].clone().requires_grad_(), rows[1].clone().requires_grad_(), torch.tensor(weight).requires_grad_())
    expected = results(gated_norm(*inputs, EPS), inputs, rows[2].clone())
    found = (out.reshape(5, 3), grad_y.reshape(5, 3), grad_z.reshape(5, 3), grad_weight.reshape(2, 3).sum(0))
    for name, value in zip(NAMES, found, strict=True):
        assert_close(torch.from_numpy(value), expected[name], 1e-13, name)


def test_second_derivatives() -> None:
    inputs, _ = drawn((1, 1, 3, 4), torch.float64)
    assert torch.autograd.gradgradcheck(lambda *given: gated_norm(*given, EPS), inputs)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch itself, at its first dual number
def test_where_operations_are_looked_into_torchs_serve() -> None:
    (y, z, weight), _ = drawn((2, 3, 5, 8), torch.float64)
    expected = gated_norm(y, z, weight, EPS)
    mapped = vmap(lambda one, other: gated_norm(one, other, weight, EPS))(y, z)
    assert_close(mapped, expected, 1e-13, "vmap")
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(y.detach(), torch.ones_like(y))
        tangent = forward_ad.unpack_dual(gated_norm(dual, z, weight, EPS)).tangent
    step = 1e-6
    moved = (gated_norm(y + step, z, weight, EPS) - gated_norm(y - step, z, weight, EPS)) / (2 * step)
    assert_close(tangent, moved, 1e-8, "tangent")


@pytest.mark.parametrize("case", ["small", "mixed types", "half precision", "broadcast"])
def test_what_it_does_not_serve_goes_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (y, z, weight), _ = drawn((2, 3, 5, 8), torch.float32)
    if case == "small":
        monkeypatch.setattr(gating, "LEAST", 1 << 15)
    if case == "mixed types":
        z = z.detach().bfloat16()
    if case == "half precision":
        y, z, weight = (one.detach().bfloat16().requires_grad_() for one in (y, z, weight))
    if case == "broadcast":
        z = z[:1]
    out = gated_norm(y, z, weight, EPS)
    assert "gated_norm" not in kind(out)
    assert torch.equal(out, reference(y, z, weight, EPS))


def test_the_shell_ends_with_it() -> None:
    shell = Shell(8, ShellSpec())
    u, z = shell.enter(torch.randn(2, 3, 5, 8))
    assert z is not None
    calls: list[str] = []
    out = shell.leave(u, z)
    node = out.grad_fn
    while node is not None:
        calls.append(type(node).__name__)
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)
    assert any("gated_norm" in name for name in calls)
    assert_close(out, shell.out_proj(shell.norm(u) * torch.nn.functional.silu(z)), 1e-6, "output")


def test_the_counter_knows_it() -> None:
    mixer = operators.create("identity", 8, grid=(3, 5))
    x = torch.randn(2, 3, 5, 8)
    with torch.no_grad(), OpCounter() as counter:
        mixer(x)
    assert "operator_zoo::gated_norm_fwd" in counter.by_op
    assert counter.macs == 2 * mixer.cost(3, 5).macs
