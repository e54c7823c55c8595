"""The mixer `gspn` against its definition in loops, and what scans of lines do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import operators
from operators import BARE, InputError
from operators.mixers.equations.gspn import GSPN, transitions
from operators.scan.lines import OP, line_scan, line_scan_reference
from operators.testing.cases import noise, run, run_with_gradients
from operators.testing.checks import assert_close, assert_finite

WIDTH = 4


def make(**params: Any) -> operators.Mixer:
    torch.manual_seed(0)
    mixer = operators.create("gspn", WIDTH, shell=BARE, **{"rank": 3, **params}).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter))
    return mixer


def core(mixer: operators.Mixer) -> GSPN:
    assert isinstance(mixer.core, GSPN)
    return mixer.core


def plain(mixer: operators.Mixer, x: Tensor) -> Tensor:
    """The definition by loops over directions, lines and pixels; each direction in a frame of its own."""
    own, total = core(mixer), torch.zeros_like(x)
    maps = (x @ own.down.weight.mT @ own.up.weight.mT).unflatten(-1, (4, 6, WIDTH)).transpose(-3, -2)
    for direction in range(4):

        def turned(tensor: Tensor, direction: int = direction) -> Tensor:
            tensor = tensor.transpose(1, 2) if direction % 2 else tensor
            return tensor.flip(2) if direction >= 2 else tensor

        left, middle, right, source, read, skip = turned(maps[..., direction, :]).unbind(3)
        field = turned(x)
        height, width = field.shape[1:3]
        before: list[Tensor] = []
        columns = []
        for line in range(width):
            now, column = [], []
            for i in range(height):
                h = source[:, i, line] * field[:, i, line]
                gates = {0: middle[:, i, line].sigmoid()}
                if i > 0:
                    gates[-1] = left[:, i, line].sigmoid()
                if i < height - 1:
                    gates[1] = right[:, i, line].sigmoid()
                if before:
                    h = h + sum(gate * before[i + t] for t, gate in gates.items()) / sum(gates.values())
                now.append(h)
                column.append(read[:, i, line] * h + skip[:, i, line] * field[:, i, line])
            before = now
            columns.append(torch.stack(column, 1))
        y = torch.stack(columns, 2)
        y = y.flip(2) if direction >= 2 else y
        total = total + own.merge[direction] * (y.transpose(1, 2) if direction % 2 else y)
    return total


@pytest.mark.parametrize("grid", [(4, 3), (1, 4), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid: tuple[int, int]) -> None:
    mixer, x = make(), noise(2, *grid, WIDTH, dtype=torch.float64)
    y, gradients = run_with_gradients(mixer, x)
    expected, expected_gradients = run_with_gradients(mixer, x, through=lambda x: plain(mixer, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        other = expected_gradients[name]
        assert gradient is not None
        assert other is not None
        assert_close(gradient, other, 1e-11, f"gradient of {name}")


# ---------------------------------------------------------------- the scan of lines


def drawn(lines: int = 5, pixels: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    source, read = noise(2, lines, 3, pixels, 2, dtype=dtype).unbind()
    gates = transitions(noise(3, lines, 3, pixels, 2, dtype=dtype, seed=3))
    return [tensor.clone().requires_grad_() for tensor in (source, gates, read)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(5, 4), (1, 3), (6, 1)], ids=str)
def test_the_operator_is_the_reference_with_all_gradients(shape: tuple[int, int], reverse: bool) -> None:
    given = drawn(*shape)
    gradient, results = noise(*given[0].shape, dtype=torch.float64, seed=5), []
    for scan in (line_scan, line_scan_reference):
        y = scan(*given, reverse)
        results.append([y.detach(), *torch.autograd.grad(y, given, gradient, materialize_grads=True)])
    for name, found, expected in zip(("y", "d source", "d gates", "d read"), *results, strict=True):
        assert_close(found, expected, 1e-13, name)


def test_a_long_scan_keeps_its_digits() -> None:
    given = drawn(1024, 4, torch.float32)
    gradient = noise(*given[0].shape, seed=5)
    single, double = (
        torch.autograd.grad(scan(*leaves), leaves, gradient.to(leaves[0].dtype))
        for scan, leaves in (
            (line_scan, given),
            (line_scan_reference, [leaf.detach().double().requires_grad_() for leaf in given]),
        )
    )
    for name, found, expected in zip(("source", "gates", "read"), single, double, strict=True):
        assert_close(found.double(), expected, 2e-6, f"gradient of {name} over 4,096 tokens")


@pytest.mark.slow
def test_it_is_an_operator_of_torch() -> None:
    torch.library.opcheck(OP.operator, (*drawn(), True))


def test_results_lie_in_one_piece_whatever_the_strides_of_the_arguments() -> None:
    """As the operator tells the compiler."""
    source, read, grad = (torch.randn(4, 3, 2, 5).permute(2, 1, 3, 0) for _ in range(3))
    gates = torch.rand(3, *source.shape)
    y, lines = OP.forward(source, gates, read, False)
    for result in (y, lines, *OP.backward(gates, read, lines, grad, False)):
        assert result.is_contiguous()


def test_what_it_refuses() -> None:
    source, gates, read = drawn()
    with pytest.raises(InputError, match=r"takes gates of shape \(3, 5, 3, 4, 2\), not \(2, 5, 3, 4, 2\)"):
        line_scan(source, gates[:2], read)
    (first,) = torch.autograd.grad(line_scan(source, gates, read).sum(), read, create_graph=True)
    with pytest.raises(InputError, match=r"no second derivatives: call operators\.scan\.lines\.line_scan_reference"):
        torch.autograd.grad(first.sum(), source)
    with pytest.raises(InputError, match=r"mixer\.rank=0 must be an integer >= 1"):
        operators.create("gspn", 8, rank=0)


# ---------------------------------------------------------------- what it does


def test_weights_are_positive_and_sum_to_one_whatever_the_logits() -> None:
    logits = torch.cat([noise(3, 2, 1, 5, 3), torch.tensor([-1e30, -200.0, 1e30]).expand(3, 2, 1, 5, 3)], 2)
    p = transitions(logits)
    assert_close(p.sum(0), torch.ones_like(p[0]), 1e-6, "sum of weights")
    assert p.min() >= 0
    assert not p[0, :, :, 0].any(), "nothing before the first pixel of a line"
    assert not p[2, :, :, -1].any(), "nothing after the last one"
    assert torch.equal(transitions(logits[:, :, :, :1])[1], torch.ones_like(p[1, :, :, :1])), "a line of one pixel"


def test_a_steady_source_adds_up_whatever_the_weights() -> None:
    _, gates, read = drawn(6, 4)
    ones = torch.ones_like(read)
    expected = torch.arange(1.0, 7, dtype=torch.float64)[:, None, None, None].expand_as(read)
    assert_close(line_scan(ones, gates, ones).detach(), expected.contiguous(), 1e-13, "lines")
    assert_close(
        line_scan(ones, gates, ones, reverse=True).detach(), expected.flip(0), 1e-13, "lines against the order"
    )


def test_what_starts_on_the_first_line_stays_between_its_extremes() -> None:
    source, gates, read = drawn(9, 6)
    only = torch.cat([source[:1], torch.zeros_like(source[1:])])
    lines = line_scan(only, gates, torch.ones_like(read))
    assert (lines <= only[0].amax(1)[:, None] + 1e-12).all()
    assert (lines >= only[0].amin(1)[:, None] - 1e-12).all()
    spread = lines.amax(2) - lines.amin(2)
    assert (spread.diff(dim=0) <= 1e-12).all(), "extremes only fall"


def test_constant_weights_are_steps_of_convection_and_diffusion() -> None:
    """A spot after n lines: the n-fold convolution of the weights, n times the drift and the variance of a line."""
    weights, pixels, n = np.array([0.5, 0.3, 0.2]), 31, 8
    gates = torch.tensor(weights)[:, None, None, None, None].expand(3, n + 1, 1, pixels, 1)
    source = torch.zeros(n + 1, 1, pixels, 1, dtype=torch.float64)
    source[0, 0, pixels // 2] = 1
    last = line_scan(source, gates, torch.ones_like(source))[-1, 0, :, 0].numpy()
    expected = np.ones(1)
    for _ in range(n):
        expected = np.convolve(expected, weights[::-1])
    assert_close(last[pixels // 2 - n : pixels // 2 + n + 1], expected, 1e-13, "n-fold convolution")
    place = np.arange(pixels) - pixels // 2
    drift = weights[0] - weights[2]
    assert (last * place).sum() == pytest.approx(n * drift)
    assert (last * (place - n * drift) ** 2).sum() == pytest.approx(n * (weights[0] + weights[2] - drift**2))


def test_a_direction_looks_back_only() -> None:
    """The cone of 90 degrees: from the left, at most as many pixels up or down as lines have passed."""
    mixer = make()
    with torch.no_grad():
        core(mixer).merge.copy_(torch.tensor([1.0, 0, 0, 0]))
    x = noise(1, 7, 7, WIDTH, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(mixer(x)[0, 3, 3].sum(), x)
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    cone = (columns <= 3) & ((rows - 3).abs() <= 3 - columns)
    seen = gradient[0].abs().sum(-1)
    assert not seen[~cone].any()
    assert (seen[cone] > 0).all()


def test_what_is_shown_and_large_inputs() -> None:
    mixer = make().float()
    x = noise(2, 3, 5, WIDTH)
    drift = mixer.inspect(x)["drift"]
    assert drift.shape == (2, 4, WIDTH, 3, 5)
    assert drift.abs().max() <= 1
    assert_finite(run(mixer, 1e6 * x), "output of a large input")
