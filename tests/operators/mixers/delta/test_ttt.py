"""`ttt`: the inner step against autograd, its limits, and who knows where tokens are."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.mixers.delta.ttt import SCALE
from operators.testing.cases import noise, run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs

WIDTH = 12
TIGHT = 1e-12


def make(*, seed=0, shell=operators.BARE, width=WIDTH, **params):
    """A mixer whose inner weights are of order one."""
    torch.manual_seed(seed)
    mixer = operators.create("ttt", width, shell=shell, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return mixer.eval()


def image(*grid, batch=2, seed=1, width=WIDTH):
    return noise(batch, *grid, width, dtype=torch.float64, seed=seed)


def run_core(mixer, u, x):
    return mixer.core(u, x=x).detach()


def swiglu(z, first, second):
    gate = z @ second
    return (z @ first) * gate * torch.sigmoid(gate)


def by_loops(mixer, x):
    """Heads, inner losses, differentiated by autograd, and clipped steps, one image after another."""
    core = mixer.core
    d, heads = core.head_width, core.heads
    height, width = x.shape[1:3]
    count = height * width
    outputs = []
    for tokens in x.flatten(1, 2):
        q, k = (tokens @ core.qk.weight.T + core.qk.bias).split(WIDTH, -1)
        parts = []
        for h in range(heads):
            place = slice(h * d, (h + 1) * d)
            old = core.weight[h, :, :d], core.weight[h, :, d:]
            loss = -SCALE / count * (tokens[:, place] * swiglu(k[:, place], *old)).sum()
            steps = torch.autograd.grad(loss, old, create_graph=True)
            new = [w - core.rate * g / (g.square().sum(0).sqrt() + 1) for w, g in zip(old, steps, strict=True)]
            parts.append(swiglu(q[:, place], *new))
        if core.convolution:
            place = slice(heads * d, WIDTH)
            keys, queries, values = (t[:, place].T.reshape(1, d, height, width) for t in (k, q, tokens))
            kernel = core.kernel.view(d, 1, 3, 3)
            loss = -SCALE / count * (values * F.conv2d(keys, kernel, padding=1, groups=d)).sum()
            step = torch.autograd.grad(loss, kernel, create_graph=True)[0]
            kernel = kernel - core.rate * step / (step.square().sum((2, 3), keepdim=True).sqrt() + 1)
            parts.append(F.conv2d(queries, kernel, padding=1, groups=d)[0].flatten(1).T)
        outputs.append(torch.cat(parts, -1))
    return torch.stack(outputs).view(x.shape)


# ---------------------------------------------------------------- against the definition


@pytest.mark.parametrize(
    "params", [{"heads": 2}, {"heads": 5, "rate": 0.3}, {"heads": 3, "convolution": False}, {}], ids=str
)
@pytest.mark.parametrize("grid", [(3, 5), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make(**params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x))
    assert_close(y, expected, TIGHT, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-10, name)


def test_without_values_there_is_no_step():
    x = image(3, 5)
    still = make(heads=2, rate=0)
    assert_close(run_core(make(heads=2), torch.zeros_like(x), x), run_core(still, x, x), TIGHT, "y")


def test_no_step_is_longer_than_the_rate():
    """However large the gradients: each column of W and each kernel moves by less than η."""
    mixer = make(heads=2, rate=0.5)
    shown = mixer.inspect(1e3 * image(3, 5))
    step = (shown["weights"] - mixer.core.weight).norm(dim=-2)
    kernel = (shown["kernel"] - mixer.core.kernel.unflatten(-1, (3, 3))).flatten(2).norm(dim=-1)
    assert 0.49 < step.max() <= 0.5
    assert 0.49 < kernel.max() <= 0.5


# ---------------------------------------------------------------- positions


def test_the_heads_do_not_know_where_tokens_are_and_the_convolution_does():
    mixer, x = make(heads=2), image(3, 5)
    shuffle = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    y = run(mixer, x).flatten(1, 2)[:, shuffle]
    moved = run(mixer, x.flatten(1, 2)[:, shuffle].view_as(x)).flatten(1, 2)
    assert_close(moved[..., :8], y[..., :8], TIGHT, "y of the heads")
    assert_differs(moved[..., 8:], y[..., 8:], 1e-2, "y of the convolution")
    plain = make(heads=3, convolution=False)
    assert plain.permutation_equivariant
    assert not mixer.permutation_equivariant
    expected = run(plain, x).flatten(1, 2)[:, shuffle]
    assert_close(run(plain, x.flatten(1, 2)[:, shuffle].view_as(x)).flatten(1, 2), expected, TIGHT, "y without it")


def test_copies_of_all_tokens_change_nothing():
    mixer, x = make(heads=3, convolution=False), image(3, 5)
    assert_close(run(mixer, x.tile(1, 2, 2, 1)), run(mixer, x).tile(1, 2, 2, 1), TIGHT, "y of four copies")


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("width", "params", "heads", "head_width"),
    [
        (448, {}, 6, 64),  # ViT³-S: 384 · 7/6
        (224, {"heads": 6}, 6, 32),
        (192, {}, 2, 64),
        (192, {"convolution": False}, 3, 64),
        (2, {}, 1, 1),
    ],
)
def test_heads_are_about_64_wide_and_share_with_the_convolution(width, params, heads, head_width):
    core = operators.create("ttt", width, shell=operators.BARE, **params).core
    assert (core.heads, core.head_width) == (heads, head_width)
    assert core.weight.shape == (heads, head_width, 2 * head_width)


def test_the_published_shell_has_the_released_number_of_parameters():
    """Of one `TTT` of ViT³-S: qkv 384 × (3 · 384 + 3 · 64), two inner matrices per head, a kernel, the output."""
    mixer = operators.create("ttt", 384, shell="published")
    expected = 385 * (3 * 384 + 3 * 64) + 6 * 2 * 64**2 + 9 * 64 + 449 * 384
    assert sum(parameter.numel() for parameter in mixer.parameters()) == expected
    core = mixer.core
    assert abs(core.weight.std().item() - 0.02) < 1e-3
    assert abs(core.kernel.std().item() - 0.02) < 3e-3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"heads": 4}, r"mixer\.heads=4: with the convolution, heads \+ 1 must divide the width 12; nearest: 3 and 5"),
        ({"heads": 0}, r"mixer\.heads=0 must be an integer >= 1"),
        ({"heads": 5, "convolution": False}, r"mixer\.heads=5 must divide the width 12; nearest: 4 and 6"),
        ({"rate": -1}, r"mixer\.rate=-1\.0 must be a number >= 0"),
        ({"convolution": 2}, r"mixer\.convolution=2 is not known"),
    ],
)
def test_parameters_that_cannot_be_are_refused_in_a_line(params, message):
    with pytest.raises(InputError, match=message) as refusal:
        operators.create("ttt", WIDTH, shell=operators.BARE, **params)
    assert "\n" not in str(refusal.value)


def test_a_single_channel_cannot_be_shared():
    with pytest.raises(InputError, match=r"mixer\.convolution needs a width of at least 2"):
        operators.create("ttt", 1, shell=operators.BARE)
