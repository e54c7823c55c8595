import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import operators
from operators import InputError
from operators.mixers.heads import default_heads, rope_angles, rotate
from operators.testing.checks import assert_close

GRIDS = [(5, 7), (4, 4), (1, 3), (1, 1)]


def make(width=24, *, seed=0, dtype=torch.float64, shell=operators.BARE, **params):
    torch.manual_seed(seed)
    mixer = operators.create("attention", width, shell=shell, **params).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():  # far from the start, where all scores are nearly equal
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return mixer


def image(*grid, width=24, batch=2, seed=1, dtype=torch.float64):
    return torch.randn(batch, *grid, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def plain(q, k, v):
    """Attention of one head by loops over the tokens; q, k, v (N, d)."""
    rows = []
    for query in q:
        weights = [(query @ key / math.sqrt(q.shape[1])).exp() for key in k]
        rows.append(sum(weight * value for weight, value in zip(weights, v, strict=True)) / sum(weights))
    return torch.stack(rows)


# ---------------------------------------------------------------- against the definition


def test_published_mixer_is_the_textbook_formula():
    mixer = make(12, shell="published", heads=3)
    x = image(2, 3, width=12, batch=1)
    tokens = x.reshape(6, 12)
    q, k = (tokens @ mixer.core.qk.weight.T + mixer.core.qk.bias).split(12, dim=1)
    v = tokens @ mixer.shell.in_proj.weight.T + mixer.shell.in_proj.bias
    heads = [plain(q[:, h : h + 4], k[:, h : h + 4], v[:, h : h + 4]) for h in (0, 4, 8)]
    expected = torch.cat(heads, dim=1) @ mixer.shell.out_proj.weight.T + mixer.shell.out_proj.bias
    assert_close(mixer(x).reshape(6, 12), expected, 1e-12, "y")


@pytest.mark.parametrize("width", [192, 384])
def test_published_mixer_has_as_many_parameters_as_the_vision_transformers(width):
    mixer = operators.create("attention", width, shell="published")
    assert mixer.cost(14, 14).parameters == 4 * width**2 + 4 * width


@pytest.mark.parametrize("params", [{}, {"qk_norm": True}, {"rope": True}, {"qk_norm": True, "rope": True}], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_sdpa_equals_reference_in_outputs_and_gradients(grid, params):
    x, results = image(*grid), {}
    weight = image(*grid, seed=2)
    for backend in ("sdpa", "reference"):
        mixer = make(backend=backend, heads=2, shell="published", **params)
        leaf = x.clone().requires_grad_()
        y = mixer(leaf)
        (y * weight).sum().backward()
        gradients = {f"d{name}": parameter.grad for name, parameter in mixer.named_parameters()}
        results[backend] = {"y": y.detach(), "dx": leaf.grad, **gradients}
    scale = results["reference"]["dx"].square().mean().sqrt()
    for name, expected in results["reference"].items():
        got = results["sdpa"][name]
        if expected.abs().max() < 1e-12 * scale:  # a single token attends to itself whatever q and k are
            assert got.abs().max() < 1e-12 * scale, name
        else:
            assert_close(got, expected, 1e-10, name)


def test_maps_without_bias_are_those_with_a_bias_of_zero():
    bare, biased = make(heads=3, bias=False), make(heads=3)
    with torch.no_grad():
        biased.core.qk.weight.copy_(bare.core.qk.weight)
        biased.core.qk.bias.zero_()
    assert [name for name, _ in bare.named_parameters()] == ["core.qk.weight"]
    x, context = image(5, 7), image(1, 4, seed=3)[:, 0]
    assert_close(bare(x), biased(x), 1e-14, "y")
    read, expected = (mixer.core.read(context, x=x, context=context) for mixer in (bare, biased))
    assert_close(read, expected, 1e-14, "read")


def test_gradcheck():
    mixer = make(8, heads=2, rope=True, qk_norm=True)
    assert torch.autograd.gradcheck(mixer, image(2, 3, width=8, batch=1).requires_grad_())


# ---------------------------------------------------------------- what softmax attention must do


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_constant_values_pass(backend):
    core = make(backend=backend, heads=3).core
    u = torch.arange(24.0, dtype=torch.float64).expand(2, 5, 7, 24)
    assert_close(core(u, x=image(5, 7)), u, 1e-14, "y")


def test_map_rows_are_weights_and_give_the_output():
    core = make(heads=3).core
    u, x = image(5, 7, seed=3), image(5, 7)
    weights = core.inspect(u, x=x)["map"]
    assert weights.shape == (2, 3, 35, 35)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 35, dtype=torch.float64))
    expected = torch.einsum("bhnm,bmhd->bnhd", weights, u.reshape(2, 35, 3, 8)).reshape(u.shape)
    assert_close(core(u, x=x), expected, 1e-12, "y")


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_zero_temperature_retrieves_the_best_match(backend):
    core = make(backend=backend, heads=1).core
    with torch.no_grad():
        core.qk.weight[:24] *= 1e6
        core.qk.bias[:24] *= 1e6
    u, x = image(5, 7, seed=3), image(5, 7)
    shown = core.inspect(u, x=x)
    best = (shown["q"] @ shown["k"].mT)[:, 0].argmax(-1)
    expected = torch.stack([values[index] for values, index in zip(u.flatten(1, 2), best, strict=True)])
    assert len(best.unique()) > 3
    assert_close(core(u, x=x).flatten(1, 2), expected, 1e-12, "y")


@pytest.mark.parametrize(("params", "equivariant"), [({}, True), ({"qk_norm": True}, True), ({"rope": True}, False)])
def test_permutation_equivariant_unless_rotated(params, equivariant):
    mixer = make(heads=2, shell="published", **params)
    x = image(5, 7)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(5))

    def shuffle(field):
        return field.flatten(1, 2)[:, order].reshape(field.shape)

    got, expected = mixer(shuffle(x)), shuffle(mixer(x))
    assert torch.allclose(got, expected, rtol=0, atol=1e-12) == equivariant


def test_qk_norm_makes_the_map_blind_to_the_scale_of_q_and_k():
    torch.manual_seed(0)
    core = operators.create("attention", 24, heads=2, qk_norm=True).double().core
    x = image(5, 7)
    with torch.no_grad():
        core.qk.weight *= 1e3  # large against the norm's epsilon
    before = core.inspect(x, x=x)
    with torch.no_grad():
        core.qk.weight *= 1e3
    after = core.inspect(x, x=x)
    assert_close(after["map"], before["map"], 1e-6, "map")
    torch.testing.assert_close(after["q"].square().mean(-1), torch.ones(2, 2, 35, dtype=torch.float64))
    torch.testing.assert_close(after["q"].mean(-1), torch.zeros(2, 2, 35, dtype=torch.float64))


# ---------------------------------------------------------------- rotary positions


def test_rotated_scores_depend_on_the_offset_alone():
    height, width = 5, 7
    core = make(heads=2, rope=True).core
    x = image(1, 1, batch=1).expand(1, height, width, 24)  # the same content everywhere
    shown = core.inspect(x, x=x)
    scores = (shown["q"] @ shown["k"].mT)[0].reshape(2, height, width, height, width)
    seen = {}
    for row in range(height):
        for column in range(width):
            for other_row in range(height):
                for other_column in range(width):
                    offset = (other_row - row, other_column - column)
                    score = scores[:, row, column, other_row, other_column]
                    torch.testing.assert_close(score, seen.setdefault(offset, score), rtol=0, atol=1e-12)
    assert (seen[1, 0] - seen[0, 0]).abs().min() > 1e-3
    assert (seen[0, 1] - seen[1, 0]).abs().min() > 1e-3
    assert (seen[0, 1] - seen[0, -1]).abs().min() > 1e-3


def test_rotation_is_the_complex_exponential():
    height, width, d = 3, 4, 8
    q = torch.randn(1, height * width, 2, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = rotate(q, rope_angles(height, width, head_width=d, device=q.device, dtype=q.dtype))
    pairs = torch.complex(q[..., :4], q[..., 4:])
    frequencies = [1.0, 100.0**-0.5]
    for row in range(height):
        for column in range(width):
            n = row * width + column
            angles = torch.tensor([row * f for f in frequencies] + [column * f for f in frequencies])
            expected = pairs[:, n] * torch.exp(1j * angles.double())
            torch.testing.assert_close(got[:, n], torch.cat([expected.real, expected.imag], dim=-1))


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12), (64, 1), (96, 2), (32, 1), (97, 1)])
def test_default_heads(width, heads):
    assert default_heads(width) == heads
    assert operators.create("attention", width).core.heads == heads


def test_heads_follow_the_inner_width():
    assert operators.create("attention", 96, shell={"expand": 2}).core.heads == 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"heads": 7}, r"heads=7 must divide the width 64; nearest: 4 and 8"),
        ({"heads": 65}, r"heads=65 must divide the width 64; nearest: 64"),
        ({"heads": 0}, r"heads=0 must be an integer >= 1"),
        ({"heads": 2.0}, r"heads=2.0 must be an integer"),
        ({"heads": 32, "rope": True}, r"divisible by 4, not 2; heads that give one at width 64: 1, 2, 4, 8, 16"),
        ({"rope": "yes"}, r"rope='yes' is not known: allowed are True, False"),
        ({"qk_norm": None}, r"qk_norm=None is not known: allowed are True, False"),
        ({"head": 2}, r"has no 'head': allowed are bias, heads, qk_norm, rope; did you mean 'heads'"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("attention", 64, **params)
    assert "\n" not in str(caught.value)


def test_no_heads_can_be_rotated_at_some_widths():
    with pytest.raises(InputError, match=r"heads that give one at width 6: none"):
        operators.create("attention", 6, rope=True)


# ---------------------------------------------------------------- cost and initialisation


@pytest.mark.parametrize("grid", [(5, 7), (8, 8)], ids=str)
def test_cost_is_what_a_counter_sees(grid):
    mixer = make(shell={"name": "published", "expand": 2}, heads=4, backend="reference")
    cost = mixer.cost(*grid)
    with FlopCounterMode(display=False) as counter:
        mixer(image(*grid, batch=1))
    tokens = math.prod(grid)
    assert counter.get_total_flops() == 2 * cost.macs
    assert cost.mixing_macs == 2 * tokens**2 * 48
    assert cost.state_elements == 2 * tokens * 48
    assert cost.parameters == sum(parameter.numel() for parameter in mixer.parameters())


def test_initialisation():
    core = operators.create("attention", 256).core
    assert isinstance(core.qk, nn.Linear)
    std = (3 * 256) ** -0.5
    assert core.qk.weight.abs().max() <= 2 * std / 0.8796  # what a normal cut at two deviations keeps of its deviation
    assert 0.98 * std < core.qk.weight.std() < 1.02 * std
    assert not core.qk.bias.any()
