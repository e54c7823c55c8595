"""The counter against operations counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from operators.testing.counter import FORMULAS, OpCounter, count_macs, scan_macs


def test_matrix_products() -> None:
    a, b, batch = torch.randn(3, 5), torch.randn(5, 7), torch.randn(2, 3, 5)
    assert count_macs(torch.mm, a, b) == 3 * 5 * 7
    assert count_macs(torch.matmul, batch, b) == 2 * 3 * 5 * 7
    assert count_macs(torch.bmm, batch, torch.randn(2, 5, 4)) == 2 * 3 * 5 * 4
    assert count_macs(torch.mv, a, torch.randn(5)) == 3 * 5
    assert count_macs(torch.dot, torch.randn(9), torch.randn(9)) == 9
    assert count_macs(torch.addmm, torch.randn(7), a, b) == 3 * 5 * 7
    assert count_macs(torch.addmv, torch.randn(3), a, torch.randn(5)) == 3 * 5
    assert count_macs(torch.baddbmm, torch.randn(2, 3, 4), batch, torch.randn(2, 5, 4)) == 2 * 3 * 5 * 4
    assert count_macs(torch.addbmm, torch.randn(3, 4), batch, torch.randn(2, 5, 4)) == 2 * 3 * 5 * 4


def test_complex_matrix_product_is_four_real_ones() -> None:
    a, b = torch.randn(3, 5, dtype=torch.complex64), torch.randn(5, 7, dtype=torch.complex64)
    assert count_macs(torch.mm, a, b) == 4 * 3 * 5 * 7


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    assert count_macs(nn.Linear(6, 10, bias=bias), torch.randn(2, 4, 3, 6)) == 2 * 4 * 3 * 6 * 10


def test_a_triangular_system_is_half_a_product_of_its_sides() -> None:
    a, b = torch.eye(4).expand(2, 4, 4), torch.randn(2, 4, 5)
    assert count_macs(torch.linalg.solve_triangular, a, b, upper=False) == 2 * 4 * 4 * 5 / 2


def test_other_solvers_do_not_pass_uncounted() -> None:
    with pytest.raises(NotImplementedError, match="linalg_solve_ex has no formula"), torch.no_grad(), OpCounter():
        torch.linalg.solve(torch.eye(4), torch.randn(4, 5))


def test_einsum() -> None:
    assert count_macs(torch.einsum, "bhwd,de->bhwe", torch.randn(2, 3, 4, 5), torch.randn(5, 6)) == 2 * 3 * 4 * 5 * 6
    assert count_macs(torch.einsum, "bnd,bmd->bnm", torch.randn(2, 3, 5), torch.randn(2, 4, 5)) == 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(4, 6, 3), (2, 4, 8, 9), 2 * 6 * (6 * 7) * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), (1, 4, 8, 9), 6 * (4 * 5) * 4 * 9),
        (nn.Conv2d(4, 4, 7, padding="same", groups=4), (2, 4, 5, 6), 2 * 4 * 30 * 49),
        (nn.Conv2d(4, 8, (1, 3), groups=2, dilation=2), (1, 4, 5, 7), 8 * (5 * 3) * 2 * 3),
        (nn.Conv1d(4, 4, 4, padding=3, groups=4), (2, 4, 10), 2 * 4 * 13 * 4),
        (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 27 * 2 * 8),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 4, 3, 5), 2 * 4 * 15 * 6 * 4),
    ],
)
def test_convolutions(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert count_macs(layer, torch.randn(shape)) == macs


@pytest.mark.parametrize("backend", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention(backend: SDPBackend, dtype: torch.dtype) -> None:
    q, k = torch.randn(2, 3, 10, 4, dtype=dtype), torch.randn(2, 3, 12, 4, dtype=dtype)
    v = torch.randn(2, 3, 12, 4, dtype=dtype)
    with sdpa_kernel([backend]):
        assert count_macs(F.scaled_dot_product_attention, q, k, v) == 2 * 3 * 10 * 12 * (4 + 4)


@pytest.mark.parametrize("padding", [0, 1])
def test_average_pooling_is_half_a_mac_per_tap(padding: int) -> None:
    side = 6 + 2 * padding - 2
    assert count_macs(F.avg_pool2d, torch.randn(2, 4, 6, 6), 3, 1, padding) == 2 * 4 * side**2 * 9 / 2
    assert count_macs(F.avg_pool3d, torch.randn(1, 2, 4, 4, 4), 2) == 2 * 8 * 8 / 2
    assert count_macs(F.avg_pool1d, torch.randn(2, 4, 8), 4) == 2 * 4 * 2 * 4 / 2


def test_bilinear_samples_have_four_corners() -> None:
    image, points = torch.randn(2, 3, 8, 8), torch.zeros(2, 5, 4, 2)
    assert count_macs(F.grid_sample, image, points, align_corners=False) == 4 * 2 * 3 * 5 * 4


def test_fourier_transforms() -> None:
    field, spectrum = torch.randn(3, 2, 8, 6), torch.randn(3, 2, 8, 6, dtype=torch.complex64)
    complex_one = 5 * 48 * math.log2(48) / 2
    assert count_macs(torch.fft.fft2, spectrum) == pytest.approx(6 * complex_one)
    assert count_macs(torch.fft.ifft2, spectrum) == pytest.approx(6 * complex_one)
    assert count_macs(torch.fft.rfft2, field) == pytest.approx(6 * complex_one / 2)
    assert count_macs(torch.fft.irfft2, torch.fft.rfft2(field), s=(8, 6)) == pytest.approx(6 * complex_one / 2)
    assert count_macs(torch.fft.rfft, field) == pytest.approx(3 * 2 * 8 * 5 * 6 * math.log2(6) / 4)


def test_padding_counts_the_points_that_are_transformed() -> None:
    assert count_macs(torch.fft.rfft2, torch.randn(8, 6), s=(16, 12)) == pytest.approx(5 * 192 * math.log2(192) / 4)


def test_complex_products_count_and_real_ones_do_not() -> None:
    spectrum, propagator = torch.randn(3, 4, 5, dtype=torch.complex64), torch.randn(4, 5, dtype=torch.complex64)
    assert count_macs(torch.mul, spectrum, propagator) == 3 * 60
    assert count_macs(lambda: spectrum.clone().mul_(propagator)) == 3 * 60
    assert count_macs(lambda: spectrum * 2.0) == 0
    assert count_macs(lambda: spectrum * torch.tensor(2.0)) == 0
    assert count_macs(lambda: spectrum.real * spectrum.imag) == 0


def test_elementwise_work_and_norms_are_free() -> None:
    layers = nn.Sequential(nn.LayerNorm(8), nn.GELU(), nn.RMSNorm(8), nn.Softmax(-1), nn.AdaptiveAvgPool1d(1))
    assert count_macs(layers, torch.randn(2, 5, 8)) == 0


def test_recomputes_nothing_and_adds_up() -> None:
    x = torch.randn(2, 4, 6)
    layer = nn.Linear(6, 6)
    with OpCounter() as counter:
        layer(layer(x))
        x @ x.mT
    assert counter.macs == 2 * (2 * 4 * 36) + 2 * 4 * 4 * 6
    assert sum(counter.by_op.values()) == counter.macs


@torch.library.custom_op("operator_zoo::counted_in_tests", mutates_args=())
def _scan(u: Tensor, state: int) -> Tensor:
    return torch.cumsum(u @ torch.eye(u.shape[-1]), dim=1)


def test_custom_operators_need_a_formula_and_are_not_looked_into() -> None:
    u = torch.randn(2, 10, 4)
    with pytest.raises(NotImplementedError, match="operator_zoo::counted_in_tests has no formula"):
        count_macs(_scan, u, 16)
    formulas = FORMULAS | {
        "operator_zoo::counted_in_tests": lambda out, u, state: scan_macs(u.shape[0], u.shape[1], u.shape[2], state)
    }
    with OpCounter(formulas) as counter:
        _scan(u, 16)
    assert counter.macs == 9 * 2 * 10 * 4 * 16 / 2


def test_a_product_without_a_formula_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="aten::_int_mm"):
        count_macs(torch._int_mm, torch.ones(32, 32, dtype=torch.int8), torch.ones(32, 32, dtype=torch.int8))
