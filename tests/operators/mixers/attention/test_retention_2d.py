import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import assert_is, bare, by_image, heads_of, image, turned

NAME = "retention_2d"
FORMS = ("full", "decomposed")
GRIDS = [(3, 4), (1, 3)]


def softmax_average(query, keys, values, penalties):
    weights = torch.stack([(query @ k / math.sqrt(len(query)) + p).exp() for k, p in zip(keys, penalties, strict=True)])
    return (weights[:, None] * values).sum(0) / weights.sum()


def one(mixer, tokens, grid):
    core, (height, width), outputs = mixer.core, grid, []
    q, k = heads_of(core.qk, tokens, core.heads)
    pairs = core.head_width // 2
    angles = torch.tensor(
        [[n * 10000 ** (-t / max(pairs - 1, 1)) for t in range(pairs)] for n in range(len(tokens))], dtype=torch.float64
    )
    places = [(i, j) for i in range(height) for j in range(width)]
    for h, v in enumerate(tokens.chunk(core.heads, dim=-1)):
        gamma = 1 - 2 ** (-core.slowest - core.spread * h / core.heads)
        q_h, k_h = (turned(part[h], angles) if core.rope else part[h] for part in (q, k))

        def attended(v, seen, q_h=q_h, k_h=k_h, gamma=gamma):
            rows = []
            for n, (i, j) in enumerate(places):
                others = [m for m, place in enumerate(places) if seen((i, j), place)]
                steps = [abs(i - places[m][0]) + abs(j - places[m][1]) for m in others]
                rows.append(softmax_average(q_h[n], k_h[others], v[others], [s * math.log(gamma) for s in steps]))
            return torch.stack(rows)

        if core.form == "full":
            outputs.append(attended(v, lambda here, there: True))
        else:
            along_rows = attended(v, lambda here, there: here[0] == there[0])
            outputs.append(attended(along_rows, lambda here, there: here[1] == there[1]))
    return torch.cat(outputs, dim=-1)


@pytest.mark.parametrize("params", [{}, {"rope": False, "slowest": 0.5, "spread": 1}], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, form, params):
    assert_is(bare(NAME, heads=2, form=form, **params), image(*grid), by_image(one))


@pytest.mark.parametrize("form", FORMS)
def test_the_map_of_inspect_gives_the_output_and_averages(form):
    mixer, x = bare(NAME, heads=2, form=form), image(3, 5)
    weights = mixer.inspect(x)["map"]
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-13, "sums of rows")
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    assert_close(mixer(x), (weights @ v).transpose(1, 2).reshape(x.shape), 1e-13, "y")


def test_both_forms_differ_where_tokens_tell_each_other_apart():
    x = image(5, 7)
    assert_differs(bare(NAME, form="full")(x), bare(NAME, form="decomposed")(x), 1e-2, "y")


@pytest.mark.parametrize("form", FORMS)
def test_backends_agree_on_other_forms(form):
    x = image(5, 7)
    assert_close(bare(NAME, form=form)(x), bare(NAME, form=form, backend="reference")(x), 1e-13, "y")


def test_the_first_heads_see_furthest():
    mixer = bare(NAME, heads=4, rope=False)
    with torch.no_grad():
        mixer.core.qk.weight.zero_()
    weights = mixer.inspect(image(1, 9, batch=1))["map"][0, :, 4]
    ratio = weights[:, 5] / weights[:, 4]
    expected = torch.tensor([1 - 2 ** (-2 - h) for h in range(4)], dtype=torch.float64)
    assert_close(ratio, expected, 1e-13, "decay in one step, by heads")


def test_the_convolution_of_the_values_is_added_in_the_published_shell_alone():
    mixer, x = bare(NAME, lepe=True), image(5, 7)
    core = mixer.core
    local = F.conv2d(x.movedim(-1, 1), core.local.weight, core.local.bias, padding=2, groups=16).movedim(1, -1)
    y, core.local = mixer(x), None
    assert_close(y - mixer(x), local, 1e-12, "what the convolution adds")
    assert operators.create(NAME, 16, shell="published").core.local is not None
    assert operators.create(NAME, 16).core.local is None
    assert operators.create(NAME, 64, shell="published").cost(7, 7).parameters == 4 * 64**2 + 4 * 64 + 26 * 64


def test_starts_as_published():
    """Xavier's normal numbers times 2^(−5/2), for W_q and W_k apart."""
    torch.manual_seed(0)
    core = operators.create(NAME, 256).core
    for weight in core.qk.weight.detach().chunk(2):
        assert weight.std().item() == pytest.approx(2**-2.5 / 16, rel=0.02)
    assert core.qk.bias.count_nonzero() == 0


def test_costs_of_both_forms():
    full, decomposed = (operators.create(NAME, 64, form=form).core.core_cost(6, 10) for form in FORMS)
    assert full.mixing_macs == 2 * 60 * 60 * 64
    assert decomposed.mixing_macs == 2 * 60 * 16 * 64


def test_strong_decays_stay_finite():
    mixer, x = bare(NAME, slowest=0.001, spread=0, rope=False).float(), image(64, 2).float()
    assert torch.isfinite(mixer(x)).all()
    assert_close(mixer(x).double(), mixer.double()(x.double()), 1e-5, "y")


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_fused_attention_refuses_forward_mode():
    mixer, x = bare(NAME, backend="sdpa"), image(2, 3)
    with forward_ad.dual_level(), pytest.raises(InputError, match=r"mixer\.backend='sdpa' has no forward-mode"):
        mixer(forward_ad.make_dual(x, x))


@pytest.mark.parametrize(
    ("width", "params", "message"),
    [
        (16, {"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
        (6, {"heads": 2}, r"mixer\.rope=True needs a head width divisible by 2, not 3"),
        (16, {"form": "decompose"}, r"mixer\.form='decompose' is not known: .*; did you mean 'decomposed'"),
        (16, {"slowest": 0.0}, r"mixer\.slowest=0\.0 must be a number >= 0\.001 and <= 64"),
        (16, {"spread": -1.0}, r"mixer\.spread=-1\.0 must be a number >= 0 and <= 64"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(width, params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, width, **params)
    assert "\n" not in str(caught.value)
