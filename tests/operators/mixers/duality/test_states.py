"""`vssd` and `hsm_ssd`, which keep one state for all tokens: their definitions by loops, and what the state is."""

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run, run_with_gradients
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make

EXACT = 1e-12


def convolved(maps, conv, activate):
    """A depthwise convolution of maps (H, W, S) by loops over taps, zeros outside."""
    height, width, _ = maps.shape
    reach = conv.weight.shape[-1] // 2
    rows = []
    for i in range(height):
        row = []
        for j in range(width):
            total = torch.zeros_like(maps[i, j]) if conv.bias is None else conv.bias
            for a in range(-reach, reach + 1):
                for b in range(-reach, reach + 1):
                    if 0 <= i + a < height and 0 <= j + b < width:
                        total = total + conv.weight[:, 0, reach + a, reach + b] * maps[i + a, j + b]
            row.append(total * torch.sigmoid(total) if activate else total)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def vssd_by_loops(mixer, x):
    core, images = mixer.core, []
    size, heads = core.state_dim, core.heads
    for grid in x:
        maps = grid @ core.project.weight.T
        shared = maps[..., : 2 * size]
        if core.conv is not None:
            shared = convolved(shared, core.conv, True)
        shared, steps, tokens = shared.flatten(0, 1), maps[..., 2 * size :].flatten(0, 1), grid.flatten(0, 1)
        states = [0] * heads
        for t, token in enumerate(tokens):
            for head, v in enumerate(token.chunk(heads)):
                m = torch.log1p(torch.exp(steps[t, head] + core.step_bias[head])) * torch.exp(core.A_log[head])
                m = m / len(tokens) if core.normalise == "mean" else m
                states[head] = states[head] + m * torch.outer(shared[t, :size], v)
        outputs = [
            torch.cat([shared[t, size:] @ states[h] + core.D[h] * v for h, v in enumerate(token.chunk(heads))])
            for t, token in enumerate(tokens)
        ]
        images.append(torch.stack(outputs).view(grid.shape))
    return torch.stack(images)


def hsm_by_loops(mixer, x):
    core, images = mixer.core, []
    size = core.state_dim
    for grid in x:
        maps = grid @ core.project.weight.T
        maps = (maps if core.conv is None else convolved(maps, core.conv, False)).flatten(0, 1)
        tokens = grid.flatten(0, 1)
        y = torch.zeros_like(tokens)
        for s in range(size):
            B, C, step = maps[:, s], maps[:, size + s], maps[:, 2 * size + s]
            A = torch.exp(step) / torch.exp(step).sum()
            h = sum(A[t] * B[t] * tokens[t] for t in range(len(tokens)))
            kept, gate = (core.enter.weight @ h).chunk(2)
            h = core.leave.weight @ (kept * gate * torch.sigmoid(gate) + core.skip * kept)
            y = y + torch.outer(C, h)
        images.append(y.view(grid.shape))
    return torch.stack(images)


DEFINITIONS = {"vssd": vssd_by_loops, "hsm_ssd": hsm_by_loops}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("vssd", {"heads": 2}),
        ("vssd", {"heads": 3, "conv": 3, "normalise": "mean"}),
        ("hsm_ssd", {}),
        ("hsm_ssd", {"conv": 3}),
    ],
    ids=str,
)
@pytest.mark.parametrize("grid", [(3, 4), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, name, params):
    mixer, x = make(name, state_dim=2, **params), image(*grid, batch=1)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: DEFINITIONS[name](mixer, x))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        if wanted[key].abs().max() > EXACT:
            assert_close(gradient, wanted[key], EXACT, key)
        else:  # the softmax over one token is constant
            assert gradient.abs().max() < EXACT, key


def test_vssd_doubles_with_the_tokens_unless_it_takes_their_mean():
    x = image(5, 7)
    for normalise, factor in (("sum", 2), ("mean", 1)):
        mixer = make("vssd", normalise=normalise)
        with torch.no_grad():
            mixer.core.D.zero_()
        twice = run(mixer, x.repeat(1, 2, 1, 1))
        assert_close(twice, factor * run(mixer, x).repeat(1, 2, 1, 1), EXACT, f"y of doubled tokens, {normalise}")


def test_hsm_ssd_is_a_mean_over_tokens_of_low_rank():
    mixer, x = make("hsm_ssd", 8, state_dim=2), image(5, 7, width=8)
    y = run(mixer, x)
    assert_close(run(mixer, x.repeat(1, 2, 1, 1)), y.repeat(1, 2, 1, 1), EXACT, "y of doubled tokens")
    assert torch.linalg.matrix_rank(y.flatten(1, 2), atol=1e-10, rtol=0).tolist() == [2, 2]
    weights = mixer.inspect(x)["weight"]
    assert_close(weights.sum((2, 3)), torch.ones(2, 2, dtype=torch.float64), EXACT, "sum of weights")
    with torch.no_grad():
        mixer.core.project.weight[2:4] = 0
    assert run(mixer, x).count_nonzero() == 0  # C = 0 reads nothing


def test_a_number_per_state_before_the_softmax_does_nothing():
    """Hence it is left out: the released module has it, with no gradient."""
    mixer, x = make("hsm_ssd", state_dim=3), image(4, 5)
    _, _, weight = mixer.core.maps(x)
    step = (x @ mixer.core.project.weight[6:].T).flatten(1, 2)
    shifted = (step + torch.tensor([1.0, -7.0, 16.0], dtype=torch.float64)).softmax(1)
    assert_close(shifted, weight, EXACT, "weights after a shift of each state")


def test_the_published_shell_of_hsm_ssd_projects_no_tokens():
    mixer = operators.create("hsm_ssd", 16, shell="published", state_dim=5)
    assert mixer.core.conv.weight.shape == (15, 1, 3, 3)
    assert mixer.cost(4, 4).parameters == 3 * 5 * 16 + 3 * 16 * 16 + 9 * 15 + 1
    assert mixer.cost(8, 8).projection_macs == 64 * 3 * 5 * 16


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("vssd", {"conv": 4}, "mixer.conv=4 must be odd, or 0"),
        ("vssd", {"normalise": "max"}, "mixer.normalise='max' is not known: allowed are sum, mean"),
        ("vssd", {"heads": 4}, "mixer.heads=4 must divide the width 6"),
        ("hsm_ssd", {"conv": 17}, "mixer.conv=17 must be an integer >= 0 and <= 15"),
        ("hsm_ssd", {"state_dim": 0}, "mixer.state_dim=0 must be an integer >= 1"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(name, params, message):
    with pytest.raises(InputError, match=message):
        make(name, **params)
