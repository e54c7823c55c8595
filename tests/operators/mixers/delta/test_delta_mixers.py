"""`deltanet`, `gated_deltanet`, `kda` and `deltaproduct`: delta rules over a grid, their definition and reductions."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.mixers.delta.branch import STEP
from operators.scan import orders
from operators.testing.cases import run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make

WIDTH = 6
TIGHT = 1e-10
NAMES = ("deltanet", "gated_deltanet", "kda", "deltaproduct")


def sequences(height, width):
    """Tokens (row, column) in the four orders of a cross-scan, by loops."""
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    return {"row": rows, "col": columns, "row_r": rows[::-1], "col_r": columns[::-1]}


def silu(z):
    return z * torch.sigmoid(z)


def plain(branch, tokens):
    """One order of one image by loops over its tokens, heads and writes, from the branch's parameters; u = x."""
    H, K, V, W = branch.heads, branch.key_width, branch.value_width, branch.writes
    streams = []
    for x in tokens:
        values = [x] if branch.value is None else [x, branch.value.weight @ x]
        streams.append(torch.cat([branch.query_key.weight @ x, *values]))
    if branch.conv is not None:
        taps = branch.conv.weight[:, 0]
        size = taps.shape[1]
        streams = [
            sum(taps[:, k] * streams[t - size + 1 + k] for k in range(size) if t - size + 1 + k >= 0)
            for t in range(len(tokens))
        ]
    S = [torch.zeros(K, V, dtype=tokens[0].dtype) for _ in range(H)]
    outputs = []
    for x, stream in zip(tokens, streams, strict=True):
        qk, v = silu(stream[: H * K * (1 + W)]).view(1 + W, H, K), stream[H * K * (1 + W) :].view(W, H, V)
        v = v if branch.conv is None else silu(v)
        strength = branch.reach / (1 + torch.exp(-(branch.strength.weight @ x))).view(W, H)
        if branch.decay is not None:
            for linear in branch.decay.linears():
                x = linear.weight @ x
            steps = torch.log1p(torch.exp(x + branch.decay.bias)).view(H, -1)
        y = []
        for h in range(H):
            q, *keys = [vector[h] / (vector[h] @ vector[h] + 1e-6).sqrt() for vector in qk]
            if branch.decay is not None:
                S[h] = torch.exp(-branch.decay.A_log[h].exp() * steps[h])[:, None] * S[h]
            for j, k in enumerate(keys):
                S[h] = S[h] + strength[j, h] * torch.outer(k, v[j, h] - S[h].T @ k)
            y.append(S[h].T @ q / K**0.5)
        outputs.append(torch.cat(y))
    return outputs


def by_loops(mixer, x):
    sums = torch.zeros_like(x)
    for name, branch in zip(mixer.core.along, mixer.core.branches, strict=True):
        places = sequences(*x.shape[1:3])[name]
        for b in range(len(x)):
            for (i, j), y in zip(places, plain(branch, [x[b, i, j] for i, j in places]), strict=True):
                sums = sums.index_put(tuple(torch.tensor([n]) for n in (b, i, j)), y[None], accumulate=True)
    return sums / len(mixer.core.along)


# ---------------------------------------------------------------- against the definition


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("deltanet", {"heads": 2, "key_width": 2}),
        ("deltanet", {"heads": 1, "orders": ["col_r", "row"], "negative_eigenvalues": True}),
        ("gated_deltanet", {"heads": 3, "conv": 3}),
        ("kda", {"heads": 2, "orders": ["col", "col", "row_r"]}),
        ("deltaproduct", {"heads": 2, "steps": 3, "orders": ["row_r"], "conv": 2}),
        ("deltaproduct", {"heads": 2, "key_width": 1, "gated": False, "negative_eigenvalues": False}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(name, params):
    mixer, x = make(name, **params), image(3, 5, batch=1)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x))
    assert_close(y, expected, TIGHT, "y")
    for key, gradient in gradients.items():
        assert_close(gradient, wanted[key], TIGHT, key)


@pytest.mark.parametrize("name", NAMES)
def test_both_backends_agree_over_several_chunks(name):
    mixer = make(name, orders=["hilbert", "col_r"])
    reference = make(name, orders=["hilbert", "col_r"], backend="reference")
    (y, gradients), (expected, wanted) = (run_with_gradients(m, image(7, 11)) for m in (mixer, reference))
    assert_close(y, expected, TIGHT, "y")
    for key, gradient in gradients.items():
        assert_close(gradient, wanted[key], TIGHT, key)


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ["snake_col", "diag_r", "spiral"])
def test_any_order_is_the_row_scan_of_the_permuted_tokens(name, order):
    height, width = 3, 5
    mixer, row, x = make(name, orders=[order], conv=2), make(name, orders=["row"], conv=2), image(height, width)
    visited = orders.permutation(order, height, width)
    permuted = run(row, x.flatten(1, 2)[:, visited][:, None])[:, 0]
    assert_close(run(mixer, x).flatten(1, 2)[:, visited], permuted, TIGHT, "y along the order")


def test_orders_are_averaged():
    names = ["col", "snake_row_r", "col"]
    mixer, x = make("kda", orders=names), image(4, 3)
    total = 0
    for branch, name in zip(mixer.core.branches, names, strict=True):
        single = make("kda", orders=[name])
        single.core.branches[0].load_state_dict(branch.state_dict())
        total = total + run(single, x)
    assert_close(run(mixer, x), total / 3, TIGHT, "y")


@pytest.mark.parametrize("name", NAMES)
def test_one_order_is_causal(name):
    mixer, x = make(name, orders=["snake_row"], conv=3), image(4, 5)
    early, late = orders.permutation("snake_row", 4, 5).split([9, 11])
    changed = x.flatten(1, 2).clone()
    changed[:, late] += 1
    before, after = (run(mixer, z).flatten(1, 2) for z in (x, changed.view_as(x)))
    assert_close(after[:, early], before[:, early], 1e-14, "earlier outputs")
    assert (after[:, late] != before[:, late]).any(-1).all()


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)], ids=str)
def test_with_equal_maps_both_ways_the_mixer_commutes_with_half_turns(grid):
    mixer, x = make("gated_deltanet", conv=3), image(*grid)
    turned = x.rot90(2, (1, 2)).contiguous()
    assert_differs(run(mixer, turned), run(mixer, x).rot90(2, (1, 2)), 1e-3, "untied, turned")
    mixer.core.branches[1].load_state_dict(mixer.core.branches[0].state_dict())
    assert_close(run(mixer, turned), run(mixer, x).rot90(2, (1, 2)), TIGHT, "tied, turned")
    assert_differs(run(mixer, x.flip(2)), run(mixer, x).flip(2), 1e-3, "tied, mirrored")


# ---------------------------------------------------------------- negative eigenvalues


@pytest.mark.parametrize("name", ["deltanet", "deltaproduct"])
def test_a_mixer_with_negative_eigenvalues_computes_parity(name):
    """By hand: x holds 1, the bit and a mark of the first token, which writes u = 1; each later 1 turns the state."""
    params = {"steps": 1, "gated": False} if name == "deltaproduct" else {"negative_eigenvalues": True}
    mixer = operators.create(name, 3, shell=operators.BARE, orders=["row"], heads=1, key_width=1, **params)
    bits = torch.randint(2, (1, 25, 40), generator=torch.Generator().manual_seed(3)).float()
    bits[:, 0, 0] = 0
    first = torch.zeros_like(bits)
    first[:, 0, 0] = 1
    branch = mixer.core.branches[0]
    with torch.no_grad():
        branch.query_key.weight.copy_(torch.tensor([[2.0**30, 0, 0], [2.0**30, 0, 0]]))
        # β = 2 σ(z): 1 at the mark (z = 0), 2 for the bit 1, 0 for the bit 0.
        branch.strength.weight.copy_(torch.tensor([[-1000.0, 2000, 1000]]))
    x = torch.stack([torch.ones_like(bits), bits, first], -1)
    y = mixer.core(F.pad(first[..., None], (0, 2)), x=x).detach()[0, :, :, 0]
    assert torch.equal(y.flatten(), 1 - 2 * (bits.flatten().cumsum(0) % 2))


# ---------------------------------------------------------------- pictures, initial values, refusals


@pytest.mark.parametrize(("name", "params"), [("kda", {}), ("deltaproduct", {"steps": 2, "orders": ["diag_r", "col"]})])
def test_influence_is_the_rule_seen_from_the_centre(name, params):
    mixer, x = make(name, heads=2, **params), image(3, 5)
    shown = mixer.inspect(x)
    assert set(shown) == {"strength", "influence", "decay"}
    for index, (order, branch) in enumerate(zip(mixer.core.along, mixer.core.branches, strict=True)):
        single = make(name, heads=2, **{**params, "orders": [order]})
        single.core.branches[0].load_state_dict(branch.state_dict())
        u = x.clone().requires_grad_()
        heads = single.core(u, x=x)[:, 1, 2].view(2, 2, 3)[..., 0].sum(0)
        influence = sum(torch.autograd.grad(y, u, retain_graph=True)[0].view(2, 3, 5, 2, 3)[..., 0] for y in heads)
        assert_close(shown["influence"][:, index].detach(), influence.abs().mean(-1), TIGHT, f"influence along {order}")
        written = branch(orders.gather(x, order), orders.gather(x, order))
        decay = orders.scatter(written.log_decay.exp().flatten(2).mean(-1, keepdim=True), order, 3, 5)[..., 0]
        assert_close(shown["decay"][:, index].detach(), decay.detach(), TIGHT, f"decay along {order}")


@pytest.mark.parametrize(("name", "least"), [("gated_deltanet", 0), ("kda", 1), ("deltaproduct", 0)])
def test_decays_start_as_the_authors_start_them(name, least):
    torch.manual_seed(0)
    core = operators.create(name, 512, heads=128).core
    for branch in core.branches:
        rate, step = branch.decay.A_log.detach().exp(), F.softplus(branch.decay.bias.detach())
        assert least < rate.min() < least + 2
        assert 14 < rate.max() <= 16
        assert STEP[0] * 0.999 <= step.min() < 2 * STEP[0]
        assert STEP[1] / 2 < step.max() <= STEP[1] * 1.001
        assert abs(step.log10().mean() + 2) < 0.2  # even in logarithm
    names = {f"branches.{i}.decay.{parameter}" for i in range(2) for parameter in ("A_log", "bias")}
    assert core.no_weight_decay == names


def test_negative_eigenvalues_double_the_strengths():
    mixer, other = make("deltanet"), make("deltanet", negative_eigenvalues=True)
    u = image(2, 3).flatten(1, 2)
    beta, doubled = (m.core.branches[0](u, u).beta for m in (mixer, other))
    assert_close(doubled, 2 * beta, 1e-15, "β")
    assert 0 < beta.min() < beta.max() < 1


def test_keys_of_half_precision_are_normalised_in_single_precision():
    branch = make("kda", 16, heads=2).bfloat16().core.branches[0]
    u = image(5, 7, width=16).flatten(1, 2).bfloat16()
    q, k, *_ = branch(u, u)
    assert q.dtype == k.dtype == torch.float32
    assert_close(k.square().sum(-1), torch.ones_like(k[..., 0]), 1e-5, "squared length of keys")
    assert_close(8 * q.square().sum(-1), torch.ones_like(q[..., 0]), 1e-5, "squared length of queries, times K")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("deltanet", {"orders": "row"}, r"mixer\.orders='row' must be a list of scan orders, such as \[row, row_r\]"),
        ("kda", {"orders": ["hilber"]}, r"scan order 'hilber' is not known: .*; did you mean 'hilbert'\?"),
        ("gated_deltanet", {"heads": 4}, r"mixer\.heads=4 must divide the width 6; nearest: 3 and 6"),
        ("deltanet", {"key_width": 0}, r"mixer\.key_width=0 must be an integer >= 1 and <= 4096"),
        ("kda", {"conv": -1}, r"mixer\.conv=-1 must be an integer >= 0"),
        ("deltaproduct", {"steps": 0}, r"mixer\.steps=0 must be an integer >= 1"),
        ("deltaproduct", {"gated": "yes"}, r"mixer\.gated='yes' is not known"),
        ("deltanet", {"negative_eigenvalues": 2}, r"mixer\.negative_eigenvalues=2 is not known"),
        ("deltanet", {"backend": "cpu"}, r"'cpu' is not known: allowed are auto, fla, chunked, reference"),
    ],
)
def test_parameters_that_cannot_be_are_refused_in_a_line(name, params, message):
    with pytest.raises(InputError, match=message) as refusal:
        operators.create(name, WIDTH, shell=operators.BARE, **params)
    assert "\n" not in str(refusal.value)
