"""`ssd` against its definition by loops, its dual form and its limits."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.mixers.duality.ssd import RATES
from operators.mixers.scan.branch import STEP
from operators.scan import orders
from operators.testing.cases import run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make

EXACT = 1e-12


def softplus(z):
    return torch.log1p(torch.exp(z))


def plain(branch, tokens):
    """One branch by loops over the tokens of one image, (N, D), in the order of the scan."""
    size, heads, width = branch.state_dim, branch.heads, branch.width
    made = [branch.project.weight @ token for token in tokens]
    read = [torch.cat([token, maps[: 2 * size]]) for token, maps in zip(tokens, made, strict=True)]
    if branch.conv is not None:
        taps = branch.conv.weight.shape[-1]
        convolved = []
        for t in range(len(read)):
            total = branch.conv.bias
            for back in range(min(taps, t + 1)):
                total = total + branch.conv.weight[:, 0, taps - 1 - back] * read[t - back]
            convolved.append(total * torch.sigmoid(total))
        read = convolved
    states = [torch.zeros(size, width // heads, dtype=tokens[0].dtype) for _ in range(heads)]
    outputs = []
    for t in range(len(tokens)):
        v, B, C = read[t].split([width, size, size])
        y = []
        for head, u in enumerate(v.chunk(heads)):
            step = softplus(made[t][2 * size + head] + branch.step_bias[head])
            decay = torch.exp(-torch.exp(branch.A_log[head]) * step)
            states[head] = decay * states[head] + step * torch.outer(B, u)
            y.append(C @ states[head] + branch.D[head] * u)
        outputs.append(torch.cat(y))
    return outputs


def by_loops(mixer, x):
    """The mean over the orders, every one of them read in its own sequence."""
    height, width = x.shape[1:3]
    total = torch.zeros_like(x)
    for name, branch in zip(mixer.core.along, mixer.core.branches, strict=True):
        order = orders.permutation(name, height, width)
        images = [torch.stack(plain(branch, list(tokens[order]))) for tokens in x.flatten(1, 2)]
        total = total + torch.stack(images)[:, order.argsort()].view(x.shape)
    return total / len(mixer.core.along)


@pytest.mark.parametrize(
    "params",
    [{"heads": 2}, {"heads": 3, "conv": 3}, {"orders": ["col_r", "hilbert", "row"], "heads": 1, "conv": 1}],
    ids=str,
)
@pytest.mark.parametrize("grid", [(3, 4), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make("ssd", state_dim=2, **params), image(*grid, batch=1)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        # One token has no past: what only reaches the past has no gradient.
        assert_close(gradient, torch.zeros_like(gradient) if wanted[key] is None else wanted[key], EXACT, key)


def test_it_is_masked_attention():
    """(L ∘ C Bᵀ)(Δ V) + D V, with the whole matrix."""
    mixer, x = make("ssd", orders=["row"], state_dim=3, heads=2), image(5, 7)
    (branch,) = mixer.core.branches
    v, B, C, step = branch.maps(x.flatten(1, 2), x.flatten(1, 2))
    c = (-branch.A_log.exp() * step).cumsum(1).mT
    L = (c[..., :, None] - c[..., None, :]).tril().exp().tril()
    weights = L * (C @ B.mT)[:, None]
    expected = torch.einsum("bhts,bshv->bthv", weights, step[..., None] * v) + branch.D[:, None] * v
    assert_close(run(mixer, x), expected.flatten(2).view(x.shape), EXACT, "y")
    centre = 2 * 7 + 3
    shown = mixer.inspect(x)["influence"][:, 0].flatten(1)
    assert_close(shown, (weights[:, :, centre] * step.mT).abs().mean(1), EXACT, "influence on the centre")


def test_without_memory_it_is_token_wise():
    mixer, x = make("ssd", state_dim=3, heads=2), image(3, 4)
    with torch.no_grad():
        for branch in mixer.core.branches:
            branch.A_log.fill_(12)
    expected = 0
    for branch in mixer.core.branches:
        v, B, C, step = branch.maps(x.flatten(1, 2), x.flatten(1, 2))
        expected = expected + ((C * B).sum(-1)[..., None, None] * step[..., None] + branch.D[:, None]) * v / 2
    assert_close(run(mixer, x), expected.flatten(2).view(x.shape), EXACT, "y")


def test_constant_maps_make_a_causal_convolution():
    mixer = make("ssd", orders=["row"], state_dim=3, heads=1)
    (branch,) = mixer.core.branches
    u, x = image(1, 9), torch.ones(2, 1, 9, 6, dtype=torch.float64)
    _, B, C, step = (t[0, 0] for t in branch.maps(u[:, 0], x[:, 0]))
    kernel = step * (C @ B) * torch.exp(-branch.A_log.exp() * step * torch.arange(9))
    kernel[0] = kernel[0] + branch.D[0]
    padded = F.pad(u[:, 0].mT, (8, 0))
    expected = F.conv1d(padded, kernel.flip(0).expand(6, 1, 9), groups=6).mT[:, None]
    assert_close(mixer.core(u, x=x), expected, EXACT, "y")


def test_one_order_sees_no_later_token():
    mixer, x = make("ssd", orders=["col"], conv=4, state_dim=3, heads=1), image(4, 5)
    changed = x.clone()
    changed[:, :, 3] += 1
    before, after = run(mixer, x), run(mixer, changed)
    assert_close(after[:, :, :3], before[:, :, :3], 0, "earlier columns")
    assert_differs(after[:, :, 4], before[:, :, 4], 1e-3, "later column")


def test_starts_as_mamba_2():
    torch.manual_seed(0)
    branch = operators.create("ssd", 256, heads=256).core.branches[0]
    rates, steps = branch.A_log.exp(), F.softplus(branch.step_bias)
    for values, (low, high) in ((rates, RATES), (steps.log(), [torch.tensor(s).log().item() for s in STEP])):
        assert low <= values.min() + 1e-4
        assert values.max() - 1e-4 <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.1 * (high - low))
    assert branch.D.unique().tolist() == [1]
    assert operators.create("ssd", 192).core.branches[0].heads == 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"orders": []}, r"mixer.orders=\[\] must be a list"),
        ({"orders": ["rwo"]}, "did you mean 'row'"),
        ({"heads": 4}, "mixer.heads=4 must divide the width 6; nearest: 3 and 6"),
        ({"state_dim": 0}, "mixer.state_dim=0 must be an integer >= 1"),
        ({"conv": -1}, "mixer.conv=-1 must be"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make("ssd", **params)
