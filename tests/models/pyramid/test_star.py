"""The parts of ConvFormer's trunk that others do not have: StarReLU, and a head with two epsilons."""

from __future__ import annotations

import pytest
import torch

from models.pyramid.heads import DeepHead
from models.pyramid.parts import StarFeedForward
from models.pyramid.spec import PyramidSpec
from operators.testing.checks import assert_close


def test_star_feed_forward_is_its_formula() -> None:
    torch.manual_seed(0)
    ffn = StarFeedForward(3, 5).double()
    for parameter in ffn.parameters():
        torch.nn.init.normal_(parameter)
    assert {name: tuple(parameter.shape) for name, parameter in ffn.named_parameters()} == {
        "up.weight": (5, 3), "scale.value": (1,), "shift.value": (1,), "down.weight": (3, 5),
    }  # fmt: skip
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    up, down = ffn.up.weight.detach(), ffn.down.weight.detach()
    scale, shift = ffn.scale.value.item(), ffn.shift.value.item()
    expected = torch.zeros_like(x)
    for place in torch.cartesian_prod(*map(torch.arange, x.shape[:3])).tolist():
        token = x[tuple(place)]
        for hidden in range(5):
            z = max(0.0, float(up[hidden] @ token))
            expected[tuple(place)] += (scale * z**2 + shift) * down[:, hidden]
    assert_close(ffn(x), expected, 1e-14, "y")


def test_star_relu_starts_as_the_square_of_relu() -> None:
    ffn = StarFeedForward(3, 5)
    assert (ffn.scale.value.item(), ffn.shift.value.item()) == (1, 0)


@pytest.mark.parametrize("squared", [False, True])
def test_deep_head_is_its_formula(squared: bool) -> None:
    """Activations are so small that the epsilons decide."""
    torch.manual_seed(0)
    head = DeepHead(PyramidSpec(dim=3, widths=(1,), depths=(1,), norm="layer_no_bias"), 2, squared=squared).double()
    x = 1e-3 * torch.randn(2, 4, 5, 3, dtype=torch.float64)

    def norm(z: torch.Tensor, eps: float) -> torch.Tensor:
        z = z - z.mean(-1, keepdim=True)
        return z / (z.square().mean(-1, keepdim=True) + eps).sqrt()

    z = norm(x.mean((1, 2)), 1e-6) @ head.up.weight.T + head.up.bias
    z = z.clamp(min=0) ** 2 if squared else z * (1 + torch.erf(z / 2**0.5)) / 2
    z = norm(z, 1e-5 if squared else 1e-6)
    assert_close(head([x]), z @ head.linear.weight.T + head.linear.bias, 1e-13, "logits")
