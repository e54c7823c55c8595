"""`vil` against its recurrence by loops, its frame, its orders and its limits."""

import pytest
import torch

import operators
from operators import InputError
from operators.mixers.linear.vil import EPS
from operators.scan import orders
from operators.testing.cases import run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs, assert_finite
from tests.operators.mixers.drawn import image, make, set_to

EXACT = 1e-12
NAME = "vil"
GRIDS = [(3, 5), (1, 3), (1, 1)]


def block_map(layer, index, token):
    """A block-diagonal map of one token (D)."""
    parts = token.split(layer.weight.shape[-1])
    return torch.cat([w @ part for w, part in zip(layer.weight[index], parts, strict=True)]) + layer.bias[index]


def convolved(core, x):
    """SiLU of the depthwise convolution of x (B, H, W, D), zeros beyond the border."""
    side, (_, height, width, _) = core.conv.kernel_size[0], x.shape
    padded = torch.nn.functional.pad(x, (0, 0, *(4 * [side // 2])))
    total = core.conv.bias
    for i in range(side):
        for j in range(side):
            total = total + padded[:, i : i + height, j : j + width] * core.conv.weight[:, 0, i, j]
    return total * torch.sigmoid(total)


def by_loops(mixer, x):
    """C, n and h as they are written down, without a frame; ε is relative to the greatest weight e^m."""
    core, (_, height, width, channels) = mixer.core, x.shape
    d = channels // core.heads
    order = orders.permutation(core.order + ("_r" if core.backwards else ""), height, width)
    made_of = x if core.conv is None else convolved(core, x)
    images = []
    for u, c in zip(x.flatten(1, 2)[:, order], made_of.flatten(1, 2)[:, order], strict=True):
        C, n, m, rows = [0] * core.heads, [0] * core.heads, [None] * core.heads, []
        for token, source in zip(u, c, strict=True):
            q, k = (block_map(core.query_key, index, source) for index in range(2))
            v = block_map(core.value, 0, token)
            gates, heads = core.gates(torch.cat([q, k, v])), []
            for head in range(core.heads):
                part = slice(head * d, (head + 1) * d)
                i, f = gates[head], torch.sigmoid(gates[core.heads + head])
                key = torch.exp(i) * k[part] / d**0.5
                C[head] = f * C[head] + torch.outer(key, v[part])
                n[head] = f * n[head] + key
                m[head] = i if m[head] is None else torch.maximum(f.log() + m[head], i)
                sum_of_weights = torch.maximum((n[head] @ q[part]).abs(), torch.ones(()).double())
                h = C[head].T @ q[part] / (sum_of_weights + EPS * m[head].exp())
                if core.norm is not None:
                    h = h - h.mean()
                    h = h / (h.square().mean() + core.norm.eps).sqrt() * core.norm.weight[part] + core.norm.bias[part]
                    h = h + core.skip[part] * source[part]
                heads.append(h)
            rows.append(torch.cat(heads))
        images.append(torch.stack(rows)[order.argsort()])
    return torch.stack(images).view(x.shape)


@pytest.mark.parametrize(
    "params", [{}, {"conv": 3, "skip": True}, {"order": "hilbert_r", "heads": 2, "block": 2, "skip": True}], ids=str
)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make(NAME, **params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        assert_close(gradient, wanted[key], 1e-11, key)


@pytest.mark.parametrize("order", ["row", "col_r"])
def test_chunks_give_what_a_loop_over_tokens_gives(order):
    results = []
    for backend in ("chunked", "reference"):
        mixer = make(NAME, heads=2, order=order, backend=backend)
        set_to(4 * torch.randn(mixer.core.gates.weight.shape), mixer.core.gates.weight)
        results.append(run_with_gradients(mixer, image(9, 15)))
    (y, gradients), (expected, wanted) = results
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        assert_close(gradient, wanted[key], 1e-11, key)


def with_input_gates_raised(mixer, by):
    """A copy of the mixer with another bias of its input gates."""
    other = make(NAME)
    other.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        other.core.gates.bias[: other.core.heads] += by
    return other


def test_raising_all_input_gates_changes_nothing_unless_the_floor_acts():
    """Where |n · q| is above 1 numerator and denominator grow alike; below, the output is not divided at all."""
    mixer, x = make(NAME), image(4, 5)
    loud = with_input_gates_raised(mixer, 60.0)
    assert_close(run(with_input_gates_raised(mixer, 100.0), x), run(loud, x), EXACT, "y far above the floor")
    quiet = with_input_gates_raised(mixer, -30.0)
    louder = with_input_gates_raised(mixer, -29.0)
    assert_close(run(louder, x), torch.e * run(quiet, x), 1e-5, "y below the floor")
    assert_differs(run(mixer, x), run(loud, x), 1e-2, "y near the floor")


@pytest.mark.parametrize("by", [300.0, -300.0])
def test_no_gate_overflows_in_single_precision(by):
    mixer, x = with_input_gates_raised(make(NAME), by).float(), image(4, 5).float()
    y, gradients = run_with_gradients(mixer, x)
    assert_finite(y, "y")
    for name, gradient in gradients.items():
        assert_finite(gradient, name)


def test_blocks_of_a_trunk_read_from_both_ends_in_turn():
    made = [make(NAME, block_index=index).core for index in range(3)]
    assert [(core.order, core.backwards) for core in made] == [("row", False), ("row", True), ("row", False)]
    assert not make(NAME, order="row", block_index=1).core.backwards


def test_a_reversed_order_is_the_order_on_the_turned_image():
    x = image(4, 5)
    back, ahead = make(NAME, order="row_r"), make(NAME)
    assert_close(run(back, x), run(ahead, x.flip(1, 2)).flip(1, 2), EXACT, "y")


@pytest.mark.parametrize("order", ["row", "col_r"])
def test_influence_is_the_derivative_of_the_centre_by_values(order):
    mixer, x = make(NAME, heads=2, order=order), image(3, 5, batch=1)
    core = mixer.core
    found = core.inspect(x, x=x)
    assert found["influence"].shape == found["forget"].shape == found["input"].shape == (1, 2, 3, 5)
    c, q, k, v, log_input, log_forget = (t.detach() for t in core._along(x))

    def centre(v):
        core._along = lambda u: (c, q, k, v, log_input, log_forget)
        return core(x, x=x)[0, 1, 2, ::3]  # of each head the first channel

    jacobian = torch.autograd.functional.jacobian(centre, v)[:, 0]  # (heads, N, D)
    by_head = torch.stack([jacobian[0, :, 0], jacobian[1, :, 3]]).abs()
    expected = orders.scatter(by_head.mT[None], core.order, 3, 5).movedim(-1, 1)
    assert_close(found["influence"].detach(), expected, EXACT, "influence")


def test_the_start_is_that_of_the_released_models():
    core = operators.create(NAME, 32).core
    assert core.heads == 4
    assert not core.gates.weight.any()
    assert core.gates.bias[4:].tolist() == [3, 4, 5, 6]
    assert 0 < core.gates.bias[:4].abs().max() < 1
    assert core.query_key.weight.shape == (2, 8, 4, 4)


@pytest.mark.parametrize(
    ("shell", "params", "conv", "skip"),
    [
        ("common", {}, False, False),
        ("published", {}, True, True),
        ("published", {"conv": 0, "skip": False}, False, False),
        ("common", {"conv": 5, "skip": True}, True, True),
    ],
)
def test_a_preset_says_what_none_stands_for(shell, params, conv, skip):
    core = operators.create(NAME, 16, shell=shell, **params).core
    assert (core.conv is not None, core.skip is not None) == (conv, skip)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": "rows"}, r"did you mean 'row'"),
        ({"heads": 4}, r"mixer\.heads=4 must divide the width 6"),
        ({"block": 4}, r"mixer\.block=4 must divide the width 6: allowed are 1, 2, 3, 6"),
        ({"conv": 2}, r"mixer\.conv=2 must be odd"),
        ({"skip": 2}, r"mixer\.skip=2"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make(NAME, **params)
