"""`mamba` and `ss2d`: sums of selective scans over a grid, against their definition and their symmetries."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError, scan
from operators.mixers.scan.branch import STEP, Branch
from operators.scan import orders
from operators.testing.cases import noise, run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.scan.plain import plain

GRIDS = [(5, 7), (4, 4), (1, 3), (3, 1), (1, 1)]
WIDTH = 6
TIGHT = 1e-12


def make(name, *, seed=0, dtype=torch.float64, shell=operators.BARE, **params):
    """A mixer far from its initial symmetries."""
    torch.manual_seed(seed)
    mixer = operators.create(name, WIDTH, shell=shell, **params).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer.eval()


def image(*grid, batch=2, seed=1):
    return noise(batch, *grid, WIDTH, dtype=torch.float64, seed=seed)


def tied(name, **params):
    """The mixer with one set of maps for all orders."""
    mixer = make(name, **params)
    first, *others = mixer.core.branches
    for branch in others:
        branch.load_state_dict(first.state_dict())
    return mixer


def sequences(height, width):
    """Tokens (row, column) in the four orders of a cross-scan, by loops."""
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    return {"row": rows, "col": columns, "row_r": rows[::-1], "col_r": columns[::-1]}


def by_loops(mixer, x, scale):
    grid = {}
    for b in range(len(x)):
        for name, branch in zip(mixer.core.along, mixer.core.branches, strict=True):
            places = sequences(*x.shape[1:3])[name]
            for place, y in zip(places, plain(branch, [x[b, i, j] for i, j in places]), strict=True):
                grid[b, *place] = grid.get((b, *place), 0) + scale * y
    shape = x.shape[:3]
    return torch.stack([grid[b, i, j] for b in range(shape[0]) for i in range(shape[1]) for j in range(shape[2])]).view(
        x.shape
    )


# ---------------------------------------------------------------- against the definition


@pytest.mark.parametrize(
    ("name", "scale", "params"),
    [
        ("mamba", 0.5, {"state_dim": 3}),
        ("mamba", 0.5, {"state_dim": 2, "conv": 4}),
        ("mamba", 0.5, {"order": "col", "state_dim": 2, "rank": 3, "conv": 1}),
        ("ss2d", 1, {"state_dim": 2}),
        ("ss2d", 1, {"state_dim": 1, "rank": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("grid", [(3, 4), (1, 3), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, name, scale, params):
    mixer, x = make(name, **params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x, scale))
    assert_close(y, expected, TIGHT, "y")
    for key, gradient in gradients.items():
        # One token has no past: what only reaches the past has no gradient.
        assert_close(gradient, torch.zeros_like(gradient) if wanted[key] is None else wanted[key], TIGHT, key)


@pytest.mark.parametrize("name", ["snake_row", "hilbert", "diag", "window_2", "spiral"])
def test_any_order_is_the_row_scan_of_the_permuted_tokens(name):
    height, width = 5, 7
    mixer, x = make("mamba", order=name), image(height, width)
    row = make("mamba")
    row.load_state_dict(mixer.state_dict())
    order = orders.permutation(name, height, width)
    permuted = run(row, x.flatten(1, 2)[:, order][:, None])[:, 0]
    assert_close(run(mixer, x).flatten(1, 2)[:, order], permuted, TIGHT, "y along the order")


def test_merging_is_a_plain_sum_whatever_the_orders():
    names = ["col", "snake_row_r", "col_r", "col", "hilbert"]
    mixer, x = make("ss2d", orders=names), image(4, 6)
    total = 0
    for index, name in enumerate(names):
        one = make("ss2d", orders=[name])
        one.core.branches[0].load_state_dict(mixer.core.branches[index].state_dict())
        total = total + run(one, x)
    assert_close(run(mixer, x), total, TIGHT, "y")


def test_no_sequence_is_copied_for_a_reversed_order(monkeypatch):
    taken = []
    gather = orders.gather
    monkeypatch.setattr(orders, "gather", lambda x, name: taken.append(name) or gather(x, name))
    run(make("ss2d"), image(3, 4))
    assert taken == ["row", "col"]


# ---------------------------------------------------------------- causality, symmetries, limits


@pytest.mark.parametrize("conv", [None, 4])
@pytest.mark.parametrize("name", ["row", "row_r", "col", "col_r", "hilbert_r"])
def test_a_branch_is_causal_along_its_order(name, conv):
    height, width = 4, 5
    base, backwards = orders.base(name)
    torch.manual_seed(0)
    branch = Branch(WIDTH, state_dim=3, rank=2, conv=conv, backwards=backwards, backend="auto").double()
    sequence = orders.gather(image(height, width, batch=1), base)
    steps = range(height * width)
    jacobian = torch.autograd.functional.jacobian(branch, sequence)[0, :, :, 0].abs().sum((1, 3))  # (to, from)
    for to in steps:
        later = jacobian[to, :to] if backwards else jacobian[to, to + 1 :]
        earlier = jacobian[to, to:] if backwards else jacobian[to, : to + 1]
        assert later.count_nonzero() == 0
        assert earlier.min() > 0


def rotated(x):
    return x.rot90(2, (1, 2))


def transposed(x):
    return x.transpose(1, 2)


def anti_transposed(x):
    return rotated(transposed(x))


def flipped(x):
    return x.flip(2)


def upside_down(x):
    return x.flip(1)


@pytest.mark.parametrize(
    ("name", "kept", "broken"),
    [
        ("mamba", [rotated], [transposed, anti_transposed, flipped, upside_down]),
        ("ss2d", [rotated, transposed, anti_transposed], [flipped, upside_down]),
    ],
)
@pytest.mark.parametrize("grid", [(4, 4), (3, 5)], ids=str)
def test_tied_branches_commute_with_what_maps_the_orders_to_each_other(grid, name, kept, broken):
    mixer, x = tied(name, **({"conv": 3} if name == "mamba" else {})), image(*grid)
    for move in kept:
        assert_close(run(mixer, move(x).contiguous()), move(run(mixer, x)), TIGHT, move.__name__)
    for move in broken:
        assert_differs(run(mixer, move(x).contiguous()), move(run(mixer, x)), 1e-3, move.__name__)
    untied = make(name)
    assert_differs(run(untied, rotated(x).contiguous()), rotated(run(untied, x)), 1e-3, "untied, rotated")


def test_one_state_and_constant_steps_sum_four_exponential_filters():
    """B, C and dt held fixed: y = Σ over the four orders of Σ_l exp(-dt a l) dt B C u at distance l, plus D u."""
    height, width = 4, 5
    mixer, x = make("ss2d", state_dim=1), image(height, width)
    with torch.no_grad():
        for branch in mixer.core.branches:
            branch.project.weight[: branch.rank] = 0
    constant = 0.7, -1.3  # B and C come from the token: make them constant by hand
    total = torch.zeros_like(x)
    for name, branch in zip(mixer.core.along, mixer.core.branches, strict=True):
        branch.maps = lambda v, branch=branch: (
            F.linear(branch.project(v)[..., : branch.rank], branch.step.weight),
            torch.full_like(v[..., :1], constant[0]),
            torch.full_like(v[..., :1], constant[1]),
        )
        dt, decay = F.softplus(branch.step.bias), torch.exp(branch.A_log[:, 0])
        places = sequences(height, width)[name]
        for t, (i, j) in enumerate(places):
            for s, (k, m) in enumerate(places[: t + 1]):
                total[:, i, j] += torch.exp(-dt * decay * (t - s)) * dt * constant[0] * constant[1] * x[:, k, m]
            total[:, i, j] += branch.D * x[:, i, j]
    assert_close(run(mixer, x), total.detach(), TIGHT, "y")


# ---------------------------------------------------------------- what pictures need


@pytest.mark.parametrize(("name", "params"), [("mamba", {"conv": 3, "order": "hilbert"}), ("ss2d", {"state_dim": 2})])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_influence_is_the_scan_seen_from_the_centre(grid, name, params):
    mixer, x = make(name, **params), image(*grid)
    height, width = grid
    found = mixer.inspect(x)
    assert set(found) == {"step", "influence"}
    centre = height // 2 * width + width // 2
    for index, (order, branch) in enumerate(zip(mixer.core.along, mixer.core.branches, strict=True)):
        base, backwards = orders.base(order)
        v = branch.convolve(orders.gather(x, base)).detach()
        step, B, C = (tensor.detach() for tensor in branch.maps(v))
        token = int(orders.inverse(base, height, width)[centre])

        def at_centre(v, step=step, B=B, C=C, token=token, branch=branch, backwards=backwards):
            y = scan.selective_scan(
                v.mT, step.mT, -branch.A_log.exp(), B.mT, C.mT,
                delta_bias=branch.step.bias, delta_softplus=True, backend="reference", reverse=backwards,
            )  # fmt: skip
            return y.mT[:, token].sum(0)

        jacobian = torch.autograd.functional.jacobian(at_centre, v)  # (D, B, N, D)
        expected = torch.einsum("dbnd->bnd", jacobian).abs().mean(-1)
        on_grid = orders.scatter(expected[..., None], base, height, width)[..., 0]
        assert_close(found["influence"][:, index].detach(), on_grid.detach(), TIGHT, f"influence along {order}")
        steps = F.softplus(step + branch.step.bias).mean(-1)
        on_grid = orders.scatter(steps[..., None], base, height, width)[..., 0]
        assert_close(found["step"][:, index].detach(), on_grid.detach(), TIGHT, f"steps along {order}")


# ---------------------------------------------------------------- how it starts, presets, refusals


@pytest.mark.parametrize("name", ["mamba", "ss2d"])
def test_initial_values_are_the_published_ones(name):
    torch.manual_seed(0)
    core = operators.create(name, 512, shell="published").core
    low, high = STEP
    starts = []
    for branch in core.branches:
        assert branch.rank == 32
        assert torch.equal(branch.D, torch.ones(1024))
        assert_close(branch.A_log.exp(), torch.arange(1.0, 17).expand(1024, 16), 1e-6, "-A")
        assert branch.step.weight.abs().max() <= 32**-0.5
        assert branch.step.weight.abs().max() > 0.99 * 32**-0.5
        starts.append(F.softplus(branch.step.bias).detach())
    start = torch.cat(starts)
    assert low * 0.999 <= start.min() < 1.1 * low
    assert high * 0.9 < start.max() <= high * 1.001
    # Even in logarithm: the quantiles are powers.
    quantiles = torch.tensor([0.25, 0.5, 0.75])
    assert_close(start.log10().quantile(quantiles), torch.tensor([-2.5, -2.0, -1.5]), 0.03, "quartiles of the steps")
    assert len({branch.step.bias[0].item() for branch in core.branches}) == len(core.branches), "branches alike"


@pytest.mark.parametrize(
    ("name", "shell", "params", "conv", "states"),
    [
        ("mamba", "common", {}, None, 16),
        ("mamba", "published", {}, 4, 16),
        ("mamba", {"name": "published", "expand": 1}, {}, 4, 16),
        ("mamba", "published", {"conv": None}, 4, 16),
        ("mamba", "published", {"conv": 0}, None, 16),
        ("mamba", "published", {"conv": 2, "state_dim": 8}, 2, 8),
        ("ss2d", "common", {}, None, 16),
        ("ss2d", "published", {"state_dim": None}, None, 16),
        ("ss2d", "final", {"state_dim": None}, None, 1),
        ("ss2d", "final", {"state_dim": 4}, None, 4),
    ],
)
def test_a_preset_says_what_none_stands_for(name, shell, params, conv, states):
    for branch in operators.create(name, 16, shell=shell, **params).core.branches:
        assert (None if branch.conv is None else branch.conv.weight.shape[-1]) == conv
        assert branch.state_dim == states


def test_the_final_shell_has_no_gate_and_no_bias_in_its_convolution():
    shell = operators.create("ss2d", 16, shell="final").shell
    assert shell.in_proj.weight.shape == (32, 16)
    assert shell.conv.bias is None
    assert operators.create("ss2d", 16, shell="published").shell.conv.bias is not None


def test_every_scan_parameter_is_spared_from_weight_decay():
    wishes = operators.create("ss2d", 16).no_weight_decay()
    assert wishes == {f"core.branches.{i}.{name}" for i in range(4) for name in ("A_log", "D", "step.bias")}


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mamba", {"order": "hilber"}, r"scan order 'hilber' is not known: .*; did you mean 'hilbert'\?"),
        ("mamba", {"order": 3}, r"scan order '3' is not known"),
        ("mamba", {"order": "row_r"}, r"mixer\.order='row_r' must be an order without '_r'"),
        ("mamba", {"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
        ("mamba", {"rank": 0}, r"mixer\.rank=0 must be an integer >= 1"),
        ("mamba", {"conv": -1}, r"mixer\.conv=-1 must be an integer >= 0"),
        ("ss2d", {"orders": []}, r"mixer\.orders=\[\] must be a list of scan orders, such as \[row, row_r\]"),
        ("ss2d", {"orders": "row"}, r"mixer\.orders='row' must be a list"),
        ("ss2d", {"orders": ["row", "cow"]}, r"scan order 'cow' is not known: .*; did you mean 'row'\?"),
        ("ss2d", {"shell": "finale"}, r"shell='finale' is not known: .*; did you mean 'final'\?"),
        ("mamba", {"backend": "triton"}, r"backend of mamba='triton' is not known"),
    ],
)
def test_refusals(name, params, message):
    with pytest.raises(InputError, match=message):
        operators.create(name, 8, **params)


def test_the_backend_is_recorded_and_one_that_cannot_serve_is_refused():
    x = torch.randn(1, 2, 3, 8)
    assert operators.create("mamba", 8).backend == "cpu"
    chosen = operators.create("ss2d", 8, backend="chunked")
    assert chosen.backend == "chunked"
    assert_close(run(chosen, x), run(_copy(chosen, "reference"), x), 1e-5, "y")
    with pytest.raises(InputError, match=r"backend='mamba_ssm' cannot serve this scan: it serves CUDA tensors only"):
        operators.create("mamba", 8, backend="mamba_ssm")(x)


def _copy(mixer, backend):
    other = operators.create(mixer.card.name, mixer.dim, backend=backend)
    other.load_state_dict(mixer.state_dict())
    return other
