"""`gla` against its definition by loops, its limits and its refusals."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make

EXACT = 1e-12


def plain(branch, tokens):
    """One branch by loops over the tokens of one image and its heads, in the order of the scan."""
    key, heads = branch.key, branch.heads
    states = [0] * heads
    outputs = []
    for token in tokens:
        q, k = (branch.query_key.weight @ token).chunk(2)
        gate = branch.decay.weight @ (branch.low_rank.weight @ token) + branch.decay.bias
        decay = torch.sigmoid(gate) ** (1 / branch.temperature)
        y = []
        for head, v in enumerate(token.chunk(heads)):
            part = slice(head * key, (head + 1) * key)
            states[head] = decay[part, None] * states[head] + torch.outer(k[part], v)
            y.append(q[part] @ states[head] / key**0.5)
        outputs.append(torch.cat(y))
    return outputs


def by_loops(mixer, x):
    height, width = x.shape[1:3]
    total = torch.zeros_like(x)
    for name, branch in zip(mixer.core.along, mixer.core.branches, strict=True):
        order = orders.permutation(name, height, width)
        images = [torch.stack(plain(branch, list(tokens[order]))) for tokens in x.flatten(1, 2)]
        total = total + torch.stack(images)[:, order.argsort()].view(x.shape)
    return total / len(mixer.core.along)


@pytest.mark.parametrize(
    "params",
    [{"heads": 2}, {"heads": 3, "state_dim": 2, "rank": 3, "temperature": 1.0, "orders": ["snake_col_r", "row"]}],
    ids=str,
)
@pytest.mark.parametrize("grid", [(3, 5), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make("gla", **params), image(*grid, batch=1)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        if wanted[key] is None or not wanted[key].any():  # one token has no past
            assert not gradient.any(), key
        else:
            assert_close(gradient, wanted[key], EXACT, key)


def test_one_order_sees_no_later_token():
    mixer, x = make("gla", orders=["row"], heads=2), image(4, 5)
    changed = x.clone()
    changed[:, 2] += 1
    before, after = run(mixer, x), run(mixer, changed)
    assert_close(after[:, :2], before[:, :2], 0, "earlier rows")
    assert_differs(after[:, 3], before[:, 3], 1e-3, "later row")


def test_the_temperature_sets_how_long_it_remembers():
    shown = [make("gla", temperature=t).inspect(image(4, 5))["decay"].mean().item() for t in (1.0, 16.0, 1e4)]
    assert shown[0] < shown[1] < shown[2]
    assert shown[2] == pytest.approx(1, abs=1e-3)


def test_starts_as_in_fla():
    core = operators.create("gla", 192).core
    branch = core.branches[0]
    assert (len(core.branches), branch.heads, branch.key, branch.low_rank.out_features) == (2, 3, 32, 16)
    assert F.sigmoid(branch.decay.bias).pow(1 / 16).unique().item() == pytest.approx(0.5 ** (1 / 16))
    assert core.no_weight_decay == {"branches.0.decay.bias", "branches.1.decay.bias"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"orders": ["hilbrt"]}, "did you mean 'hilbert'"),
        ({"heads": 5}, "mixer.heads=5 must divide the width 6; nearest: 3 and 6"),
        ({"temperature": 0}, "mixer.temperature=0.0 must be a number"),
        ({"rank": 0}, "mixer.rank=0 must be an integer >= 1"),
        ({"state_dim": 0}, "mixer.state_dim=0 must be an integer >= 1"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make("gla", **params)
