import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.cases import run_with_gradients, tokens
from operators.testing.checks import assert_close, assert_differs, assert_finite
from tests.operators.mixers.linear.plain import GRIDS, assert_is, average, bare, by_image, heads_of, image, make, relu

NAME = "polaformer"


def by_head(core, channels):
    return torch.stack(channels.chunk(core.heads, dim=-1))


def one(mixer, tokens, grid):
    core, outputs = mixer.core, []
    q, k = heads_of(core.qk, tokens, core.heads)
    if core.positions is not None:
        k = k + by_head(core, core.positions.flatten(0, 1))
    scale = by_head(core, (1 + core.scale.exp()).log())[:, None]
    for h, v in enumerate(tokens.chunk(core.heads, dim=-1)):
        power = 1 + core.alpha / (1 + (-core.power[h]).exp())
        (q_plus, q_minus), (k_plus, k_minus) = (
            (relu(part / scale[h]) ** power, relu(-part / scale[h]) ** power) for part in (q[h], k[h])
        )
        keys, (first, second) = torch.cat([k_plus, k_minus], dim=-1), v.chunk(2, dim=-1)
        outputs.append(average(torch.cat([q_plus, q_minus], dim=-1), keys, first, 1e-6))
        outputs.append(average(torch.cat([q_minus, q_plus], dim=-1), keys, second, 1e-6))
    return torch.cat(outputs, dim=-1)


@pytest.mark.parametrize("params", [{}, {"alpha": 3}, {"positions": True}], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    assert_is(bare(NAME, heads=2, grid=grid, **params), image(*grid), by_image(one))


def test_the_heads_share_the_convolution_of_the_values():
    mixer, x = bare(NAME, heads=2, lepe=True), image(5, 7)
    core = mixer.core
    assert core.local.weight.shape == (8, 1, 5, 5)
    weight, bias = core.local.weight.repeat(2, 1, 1, 1), core.local.bias.repeat(2)
    local = F.conv2d(x.movedim(-1, 1), weight, bias, padding=2, groups=16).movedim(1, -1)
    y, core.local = mixer(x), None
    assert_close(y - mixer(x), local, 1e-12, "what the convolution adds")
    assert operators.create(NAME, 16, shell="published").core.local is not None
    assert operators.create(NAME, 16).core.local is None


def test_published_mixer_has_as_many_parameters_as_the_released_module():
    """There: four maps and one out with biases, a filter and bias by channel of a head, scale and power by channel."""
    mixer = operators.create(NAME, 64, shell="published", heads=2, positions=True, grid=(7, 7))
    assert mixer.cost(7, 7).parameters == 5 * 64**2 + 5 * 64 + 26 * 32 + 2 * 64 + 49 * 64


def test_at_power_one_the_maps_are_parts_of_the_plain_products():
    """same − opposite is q · k, and same + opposite is |q| · |k|, before their rows are normalised."""
    mixer, x = bare(NAME, heads=2, alpha=0), image(3, 5)
    scale = F.softplus(mixer.core.scale).view(2, 1, 8)
    q, k = (part / scale for part in mixer.core.queries_keys(x, x))
    shown, absolute = mixer.inspect(x), q.abs() @ k.abs().mT
    for name, sign in (("same", 1), ("opposite", -1)):
        weights = (absolute + sign * q @ k.mT) / 2
        assert_close(shown[name], weights / weights.sum(-1, keepdim=True), 1e-5, f"map of the {name} sign")


def test_the_maps_of_inspect_give_the_output():
    mixer, x = bare(NAME, heads=2), image(3, 5)
    shown, v = mixer.inspect(x), x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    halves = [shown[name] @ half for name, half in zip(("same", "opposite"), v.chunk(2, dim=-1), strict=True)]
    assert_close(mixer(x), torch.cat(halves, dim=-1).transpose(1, 2).reshape(x.shape), 1e-13, "y")


def test_opposite_queries_exchange_the_maps_and_their_size_does_not_matter():
    """The latter where all channels of a head have the same power."""
    mixer, x = bare(NAME, heads=2), image(5, 7)
    with torch.no_grad():
        mixer.core.power.zero_()
        shown, y = mixer.inspect(x), mixer(x)
        mixer.core.qk.weight[:16] *= 20
        mixer.core.qk.bias[:16] *= 20
        assert_close(mixer(x), y, 1e-4, "y of longer queries")
        mixer.core.qk.weight[:16] /= -20
        mixer.core.qk.bias[:16] /= -20
    turned = mixer.inspect(x)
    assert_close(turned["same"], shown["opposite"], 1e-13, "map of the same sign")
    assert_close(turned["opposite"], shown["same"], 1e-13, "map of opposite sign")


def test_starts_as_published():
    core = operators.create(NAME, 16, heads=2).core
    x = torch.tensor([-2.0, 0.5]).repeat(8)[None, None, None]
    with torch.no_grad():
        core.qk.weight.copy_(torch.eye(16).repeat(2, 1))
        parts, *_ = core.parts(*core.queries_keys(x, x))
    scaled = x[0, 0, 0, :8] / torch.tensor(2.0).log()
    expected = torch.cat([scaled.clamp(min=0) ** 3, (-scaled).clamp(min=0) ** 3])
    assert_close(parts[0, 0, 0], expected / expected.max(), 1e-6, "parts of q")
    assert operators.create(NAME, 16).no_weight_decay() == {"core.scale", "core.power"}


def test_high_powers_of_huge_numbers_stay_finite():
    torch.manual_seed(0)
    mixer = operators.create(NAME, 16, shell=operators.BARE, alpha=8)
    for scale in (1e-6, 1e5):
        y, gradients = run_with_gradients(mixer, scale * tokens((5, 7)))
        assert_finite(y, "y")
        for name, gradient in gradients.items():
            assert_finite(gradient, f"gradient of {name}")


def test_maps_of_high_powers_are_those_that_give_the_output():
    torch.manual_seed(0)
    mixer, x = operators.create(NAME, 16, heads=1, shell=operators.BARE, alpha=16), 1e5 * tokens((3, 5))
    with torch.no_grad():
        shown, v = mixer.inspect(x), x.flatten(1, 2).chunk(2, dim=-1)
        halves = [shown[name][:, 0] @ half for name, half in zip(("same", "opposite"), v, strict=True)]
        assert_close(mixer(x).flatten(1, 2), torch.cat(halves, dim=-1), 1e-5, "y")


def test_positions_are_added_to_the_keys_and_keep_the_mixer_to_its_grid():
    mixer, x = make(NAME, heads=2, positions=True, grid=(5, 7)), image(5, 7)
    assert not mixer.permutation_equivariant
    y = mixer(x)
    with torch.no_grad():
        mixer.core.positions[0, 0] += 1
    assert_differs(mixer(x), y, 1e-3, "y with other positions")
    with pytest.raises(InputError, match=r"mixer\.positions are for \(5, 7\) tokens, not for \(7, 5\)"):
        mixer(image(7, 5))
    with pytest.raises(InputError, match=r"mixer\.positions=True depends on the grid: give grid=\(H, W\)"):
        operators.create(NAME, 16, positions=True)


def test_doubling_all_tokens_changes_nothing():
    mixer, x = bare(NAME), image(5, 7)
    assert_close(mixer(x.repeat(1, 2, 1, 1)), mixer(x).repeat(1, 2, 1, 1), 1e-13, "y of doubled tokens")


def test_many_tokens_in_float32():
    mixer, x = bare(NAME, 32, heads=2), image(64, 64, width=32, batch=1)
    assert_close(mixer.float()(x.float()).double(), mixer.double()(x), 1e-5, "y of 4,096 tokens")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
        ({"heads": 16}, r"mixer\.heads=16 gives heads of 1 channels: they must be even"),
        ({"alpha": -1}, r"mixer\.alpha=-1\.0 must be a number >= 0 and <= 16"),
        ({"positions": 2}, r"mixer\.positions=2 is not known: allowed are True, False"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, 16, **params)
    assert "\n" not in str(caught.value)
