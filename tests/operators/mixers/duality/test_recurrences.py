"""`mamba3` and `log_linear` against their definitions by loops, and what their parts do."""

import math

import pytest
import torch

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import noise, run, run_with_gradients
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make

EXACT = 1e-12


def softplus(z):
    return torch.log1p(torch.exp(z))


def turned(t, angles):
    """Channels i and i + pairs of t turned by the angles, through complex numbers; what is left stays."""
    pairs = len(angles)
    first = torch.complex(t[:pairs], t[pairs : 2 * pairs]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([first.real, first.imag, t[2 * pairs :]])


def mamba3(branch, tokens):
    """One branch by its recurrence as it is written, with the trapezoidal rule step by step."""
    size, heads, pairs = branch.state_dim, branch.heads, branch.pairs
    outputs = [[] for _ in tokens]
    for head in range(heads):
        state, angle, before = 0, torch.zeros(pairs, dtype=tokens[0].dtype), 0
        for t, token in enumerate(tokens):
            B, C, step, rate, blend, angles = (branch.project.weight @ token).split(
                [size, size, heads, heads, heads, pairs]
            )
            v = token.chunk(heads)[head]
            step = softplus(step[head] + branch.step_bias[head])
            rate = 1 + rate[head] if rate[head] >= 0 else 1 / (1 - rate[head])
            blend = torch.sigmoid(blend[head])
            angle = angle + math.pi * torch.tanh(angles) * step
            B, C = (
                turned(t / (t.square().mean() + 1e-5).sqrt() * gain + bias[head], angle)
                for t, gain, bias in zip((B, C), branch.gain, branch.bias, strict=True)
            )
            decay, now = torch.exp(-rate * step), torch.outer(B, v)
            state = decay * state + (1 - blend) * step * decay * before + blend * step * now
            outputs[t].append(C @ state + branch.D[head] * v)
            before = now
    return [torch.cat(parts) for parts in outputs]


def log_linear(branch, tokens):
    """One branch by loops over pairs of tokens."""
    size, heads, width = branch.state_dim, branch.heads, len(tokens[0])
    maps = [branch.project.weight @ token for token in tokens]
    outputs = []
    for t, token in enumerate(tokens):
        parts = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            y = branch.D[head] * token[part]
            for s in range(t + 1):
                steps = [softplus(maps[r][2 * size + head] + branch.step_bias[head]) for r in range(s, t + 1)]
                kept = torch.exp(-torch.exp(branch.A_log[head]) * sum(steps[1:], torch.zeros_like(steps[0])))
                row = head * branch.level_count + len(f"{t ^ s:b}") if t != s else head * branch.level_count
                scale = softplus(branch.level_gain.flatten()[row] * (branch.scale.weight[row] @ token))
                y = y + scale * kept * (maps[t][size : 2 * size] @ maps[s][:size]) * steps[0] * tokens[s][part]
            parts.append(y)
        outputs.append(torch.cat(parts))
    return outputs


def by_loops(mixer, x, definition):
    height, width = x.shape[1:3]
    total = torch.zeros_like(x)
    for name, branch in zip(mixer.core.along, mixer.core.branches, strict=True):
        order = orders.permutation(name, height, width)
        images = [torch.stack(definition(branch, list(tokens[order]))) for tokens in x.flatten(1, 2)]
        total = total + torch.stack(images)[:, order.argsort()].view(x.shape)
    return total / len(mixer.core.along)


DEFINITIONS = {"mamba3": mamba3, "log_linear": log_linear}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mamba3", {"state_dim": 4, "heads": 2}),
        ("mamba3", {"state_dim": 5, "heads": 1, "rotated": 1, "orders": ["hilbert", "col_r"]}),
        ("log_linear", {"state_dim": 2, "heads": 2}),
        ("log_linear", {"state_dim": 2, "heads": 1, "levels": 5, "orders": ["col_r", "snake_row"]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("grid", [(3, 3), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, name, params):
    mixer, x = make(name, **params), image(*grid, batch=1)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x, DEFINITIONS[name]))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        if wanted[key] is None or wanted[key].abs().max() < EXACT:  # one token has no past, and meets its own angle
            assert gradient.abs().max() < EXACT, key
        else:
            assert_close(gradient, wanted[key], 10 * EXACT, key)


def test_mamba3_is_of_second_order_in_the_step_at_equal_shares():
    """Integrating a constant input over unit time: the error falls by four for half the step, by two at λ = 1."""

    def error(steps, blend):
        mixer = make("mamba3", 1, orders=["row"], state_dim=1, heads=1, rotated=0)
        (branch,) = mixer.core.branches
        with torch.no_grad():
            for parameter in branch.parameters():
                parameter.zero_()
            branch.bias.fill_(1)  # C = B = 1, A = −1
            branch.step_bias.fill_(math.log(math.expm1(1 / steps)))
            branch.project.weight[4] = blend
        u = torch.ones(1, 1, steps + 1, 1, dtype=torch.float64)
        with torch.no_grad():
            y = mixer.core(u, x=u)[0, 0, :, 0]
        # The first step starts from nothing before it: what it would have had decays away.
        start = torch.sigmoid(torch.tensor(blend)) / steps
        exact = 1 - math.exp(-1) + start * math.exp(-1)
        return abs(y[-1] - exact).item()

    for blend, ratio in ((0.0, 4), (40.0, 2)):
        coarse, fine = error(32, blend), error(64, blend)
        assert coarse / fine == pytest.approx(ratio, rel=0.05)


def test_mamba3_turns_by_the_right_angles_after_4096_tokens():
    """Sums in float32 lose another digit: only the steps are rounded here, not what they add up to."""
    mixer = make("mamba3", state_dim=4, heads=1, orders=["row"])
    (branch,) = mixer.core.branches
    x = 3 * noise(1, 4096, 6, dtype=torch.float64)
    expected = branch.maps(x)[:2]
    for actual, wanted in zip(branch.float().maps(x.float())[:2], expected, strict=True):
        assert_close(actual.double(), wanted, 1e-4, "maps in float32")


def test_starts_as_published():
    branch = operators.create("mamba3", 128, shell="published").core.branches[0]
    assert (branch.heads, branch.state_dim, branch.pairs) == (4, 128, 32)
    for bias in (branch.gain, branch.bias, branch.D):
        assert bias.unique().tolist() == [1]
    branch = operators.create("log_linear", 128).core.branches[0]
    assert branch.level_gain.unique().tolist() == [1]
    assert branch.scale.out_features == 2 * 15


@pytest.mark.parametrize("name", ["gla", "log_linear", "mamba3", "ssd"])
def test_influence_is_the_recurrence_seen_from_the_centre(name):
    """The factor of each token's value in the output, the term D v apart, its size averaged over heads."""
    mixer, x = make(name, state_dim=3, heads=2), image(4, 5)
    with torch.no_grad():
        for parameter_name, parameter in mixer.named_parameters():
            if parameter_name.endswith(".D"):
                parameter.zero_()
    shown = mixer.inspect(x)["influence"].detach()
    for index, (order, branch) in enumerate(zip(mixer.core.along, mixer.core.branches, strict=True)):
        single = make(name, state_dim=3, heads=2, orders=[order])
        single.core.branches[0].load_state_dict(branch.state_dict())
        u = x.clone().requires_grad_()
        first = single.core(u, x=x)[:, 2, 2].view(2, 2, 3)[..., 0].sum(0)  # one channel of each head
        heads = [torch.autograd.grad(y, u, retain_graph=True)[0].view(2, 4, 5, 2, 3)[..., 0] for y in first]
        factor = torch.stack([head[..., h] for h, head in enumerate(heads)]).abs().mean(0)
        assert_close(shown[:, index], factor, EXACT, f"influence along {order}")


def test_log_linear_refuses_grids_of_more_tokens_than_its_levels_reach():
    mixer = make("log_linear", levels=5)
    assert run(mixer, image(4, 4)).shape == (2, 4, 4, 6)
    with pytest.raises(InputError, match=r"serves 16 tokens with these levels, not 20; mixer\.levels=6 would"):
        run(mixer, image(4, 5))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mamba3", {"rotated": 0.3}, "mixer.rotated=0.3 is not known: allowed are 0, 0.5, 1"),
        ("mamba3", {"state_dim": 0}, "mixer.state_dim=0 must be an integer >= 1"),
        ("mamba3", {"orders": "row"}, "mixer.orders='row' must be a list"),
        ("log_linear", {"levels": 0}, "mixer.levels=0 must be an integer >= 1"),
        ("log_linear", {"heads": 4}, "mixer.heads=4 must divide the width 6"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(name, params, message):
    with pytest.raises(InputError, match=message):
        make(name, **params)
