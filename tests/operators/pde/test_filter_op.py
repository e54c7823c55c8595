"""The compiled filter: against torch's transforms, for every side, boundary, shape of memory and number of threads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import operators
from operators import BARE, InputError
from operators.pde.boundary import BOUNDARIES, Boundary, by_axis, extended
from operators.pde.filter_op import filtered as filter_operator
from operators.pde.filter_op import serves
from operators.pde.propagators import apply_transfer
from operators.testing.checks import assert_close
from operators.testing.counter import count_macs

# All factors there are, alone and together; odd sides, whose last row has no partner; channels around vectors of 16.
SHAPES = [
    (1, 2, 3, 1),
    (2, 7, 5, 16),
    (3, 8, 6, 17),
    (1, 9, 16, 33),
    (5, 4, 64, 3),
    (2, 21, 10, 48),
    (1, 35, 128, 2),
]


MIXED = (("neumann", "periodic"), ("absorbing", "dirichlet"), ("periodic", "absorbing"))


def filtered(field: Tensor, response: Tensor, boundary: Boundary) -> Tensor:
    made: Tensor = filter_operator(field, response, *by_axis(boundary))
    return made


def drawn(
    shape: tuple[int, ...], boundary: Boundary, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Field, transfer function of a real kernel, and a gradient of the output."""
    _, height, width, channels = shape
    kernel = torch.randn(*extended((height, width), boundary), channels, dtype=torch.float64)
    response = torch.view_as_real(torch.fft.rfft2(kernel, dim=(0, 1))).permute(3, 0, 1, 2)
    field, gradient = torch.randn(2, *shape, dtype=torch.float64)
    return field.to(dtype).requires_grad_(), response.to(dtype).requires_grad_(), gradient.to(dtype)


def plain(field: Tensor, response: Tensor, boundary: Boundary) -> Tensor:
    return apply_transfer(field, torch.complex(*response.unbind()), boundary, last=True)


def results(y: Tensor, field: Tensor, response: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    d_field, d_response = torch.autograd.grad(y, (field, response), gradient)
    return {"output": y.detach(), "d field": d_field, "d response": d_response}


@pytest.mark.parametrize("boundary", [*BOUNDARIES, *MIXED], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-6)], ids=str)
def test_equals_torchs_transforms(
    shape: tuple[int, ...], boundary: Boundary, dtype: torch.dtype, tolerance: float
) -> None:
    field, response, gradient = drawn(shape, boundary, dtype)
    found = results(filtered(field, response, boundary), field, response, gradient)
    wide = [tensor.detach().double().requires_grad_() for tensor in (field, response)]
    for name, expected in results(plain(*wide, boundary), *wide, gradient.double()).items():
        assert found[name].dtype == dtype
        assert found[name].is_contiguous()
        assert_close(found[name].double(), expected, tolerance, f"{name} of {shape}, {boundary}")


def test_what_no_real_kernel_has_is_left_out_as_by_torch() -> None:
    field, _, gradient = drawn((2, 6, 8, 4), "periodic")
    response = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    y = filtered(field, response, "periodic")
    assert_close(y, plain(field, response, "periodic"), 1e-14, "output")
    (d_field,) = torch.autograd.grad(y, field, gradient)
    (expected,) = torch.autograd.grad(plain(field, response, "periodic"), field, gradient)
    assert_close(d_field, expected, 1e-14, "d field")


@pytest.mark.parametrize("layout", ["half of the channels", "channels first", "one for all", "transposed"])
@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
def test_any_layout_in_memory_gives_the_same(layout: str, boundary: Boundary) -> None:
    whole = torch.randn(3, 6, 6, 20, dtype=torch.float64)
    field = {
        "half of the channels": whole[..., 7:17],
        "channels first": whole[..., :10].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "one for all": whole[:1, :1, :1, :10].expand(3, 6, 6, 10),
        "transposed": whole[..., :10].transpose(1, 2),
    }[layout]
    _, response, gradient = drawn((3, 6, 6, 10), boundary)
    for u, g in ((field, gradient), (gradient, field)):
        u = u.detach().requires_grad_()
        straight = u.detach().contiguous().requires_grad_()
        found = results(filtered(u, response, boundary), u, response, g)
        expected = results(plain(straight, response, boundary), straight, response, g)
        for name, value in expected.items():
            assert_close(found[name], value, 1e-13, name)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.pde.filter_op.OP.thread_least", 1)
    field, response, gradient = drawn((5, 9, 7, 50), "neumann", torch.float32)
    before, by_threads = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            by_threads.append(results(filtered(field, response, "neumann"), field, response, gradient))
    finally:
        torch.set_num_threads(before)
    for other in by_threads[1:]:
        for name, value in by_threads[0].items():
            assert torch.equal(value, other[name]), name


def test_an_image_and_a_channel_keep_to_themselves() -> None:
    field, response, _ = drawn((3, 5, 6, 20), "absorbing")
    with torch.no_grad():
        before = filtered(field, response, "absorbing")
        field[1, 2, 3, 17] = float("nan")
        after = filtered(field, response, "absorbing")
    assert after[1, ..., 17].isnan().all()
    after[1, ..., 17] = before[1, ..., 17]
    assert torch.equal(before, after)


def test_is_an_operator_of_torch() -> None:
    field, response, _ = drawn((2, 3, 4, 5), "neumann")
    torch.library.opcheck(filter_operator, (field, response, "neumann", "neumann"))


@pytest.mark.parametrize("boundary", ["periodic", "neumann", ("neumann", "periodic")], ids=str)
def test_costs_what_torchs_transforms_cost(boundary: Boundary) -> None:
    field, response, _ = drawn((2, 6, 8, 5), boundary)
    expected = count_macs(plain, field, response, boundary)
    points = math.prod(extended((6, 8), boundary))
    assert expected > 2 * 5 * 5 * points * math.log2(points) / 2
    assert count_macs(filtered, field, response, boundary) == pytest.approx(expected, rel=1e-12)


def test_no_second_derivatives() -> None:
    field, response, gradient = drawn((1, 2, 3, 4), "periodic")
    y = filtered(field, response, "periodic")
    (first,) = torch.autograd.grad(y, field, gradient.requires_grad_(), create_graph=True)
    with pytest.raises(InputError, match=r"no second derivatives.*fft"):
        torch.autograd.grad(first.sum(), response)


@pytest.mark.parametrize(
    ("height", "width", "boundary", "served"),
    [
        (64, 210, "periodic", True),
        (11, 8, "periodic", False),
        (8, 26, "neumann", False),
        (1, 8, "periodic", False),
        (1, 8, "dirichlet", True),
        (1, 7, ("dirichlet", "periodic"), True),
        (1, 7, ("periodic", "dirichlet"), False),
    ],
)
def test_sides_it_serves(height: int, width: int, boundary: Boundary, served: bool) -> None:
    assert serves(height, width, boundary) is served


@pytest.mark.parametrize("options", [{}, {"tensor": "full"}, {"forcing": "constant"}, {"forcing": "steady"}], ids=str)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_mixer_is_the_same_by_it(options: dict[str, str], boundary: Boundary) -> None:
    torch.manual_seed(0)
    arms = {}
    x, gradient = torch.randn(2, 3, 6, 7, 8, dtype=torch.float64)
    for method in ("fft", "compiled_fft"):
        mixer = operators.create("pde_ssm", 8, grid=(6, 7), boundary=boundary, method=method, shell=BARE, **options)
        mixer = mixer.double()
        if arms:
            mixer.load_state_dict(arms["fft"][0])
        field = x.clone().requires_grad_()
        y = mixer(field)
        names = ["field", *(name for name, _ in mixer.named_parameters())]
        gradients = torch.autograd.grad(y, [field, *mixer.parameters()], gradient)
        with torch.no_grad():
            kept = mixer(x), mixer(x)
        assert torch.equal(*kept)
        assert_close(kept[0], y.detach(), 1e-13, "in evaluation")
        arms[method] = mixer.state_dict(), {"output": y.detach(), **dict(zip(names, gradients, strict=True))}
    for name, expected in arms["fft"][1].items():
        assert_close(arms["compiled_fft"][1][name], expected, 1e-12, name)


def test_refuses_images_that_condition() -> None:
    with pytest.raises(InputError, match=r"compiled_fft needs pde.condition=none.*use pde.method=.*fft, .*or auto"):
        operators.create("pde_ssm", 8, grid=(4, 4), method="compiled_fft", condition="input")


def test_refuses_other_factors() -> None:
    mixer = operators.create("pde_ssm", 8, grid=(11, 4), method="compiled_fft")
    with pytest.raises(InputError, match=r"compiled_fft needs sides .* 2, 3, 5, 7, not 11x4; use pde.method=.*fft, "):
        mixer(torch.zeros(1, 11, 4, 8))


def test_refuses_another_device() -> None:
    mixer = operators.create("pde_ssm", 8, grid=(4, 4), method="compiled_fft", shell=BARE).to("meta")
    with pytest.raises(InputError, match=r"compiled_fft runs on the CPU, not on meta; use pde.method=.* or auto"):
        mixer(torch.zeros(1, 4, 4, 8, device="meta"))
