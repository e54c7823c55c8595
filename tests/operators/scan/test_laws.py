"""What a selective scan is, by mathematics: closed forms, limits, symmetries."""

import pytest
import torch

from operators.scan import selective_scan
from operators.testing.checks import assert_close, assert_differs
from tests.operators.scan.cases import SERVED, arguments, fixed, noise, results

TIGHT = 1e-12
pytestmark = pytest.mark.parametrize("backend", SERVED)


@pytest.mark.parametrize("length", [1, 7, 70])
def test_it_is_masked_attention(backend, length):
    """y_t = sum_{s<=t} (sum_n C_t[n] exp(A[n] sum_{s<r<=t} dt_r) B_s[n]) dt_s u_s + D u_t."""
    given = fixed(arguments(length=length, options="skip"))
    time = given["delta"].cumsum(-1)
    between = time[..., :, None] - time[..., None, :]  # (B, D, t, s)
    decay = torch.exp(given["A"][:, :, None, None] * between[:, :, None])
    weights = torch.einsum("bnt,bdnts,bns->bdts", given["C"], decay, given["B"]).tril()
    expected = torch.einsum("bdts,bds->bdt", weights, given["delta"] * given["u"]) + given["D"][:, None] * given["u"]
    assert_close(selective_scan(**given, backend=backend), expected, TIGHT, "y")


def test_constant_coefficients_give_a_convolution(backend):
    """With kernel K_l = sum_n C_n exp(l dt A_n) dt B_n."""
    length = 70
    given = fixed(arguments(length=length))
    given = {k: v[..., :1].expand_as(v) if k in ("delta", "B", "C") else v for k, v in given.items()}
    dt, b, c = (given[name][..., 0] for name in ("delta", "B", "C"))
    lags = torch.arange(length, dtype=torch.float64)
    decay = torch.exp(lags * dt[:, :, None, None] * given["A"][..., None])
    kernel = torch.einsum("bn,bdnl,bd,bn->bdl", c, decay, dt, b)
    size = 2 * length
    expected = torch.fft.irfft(torch.fft.rfft(kernel, size) * torch.fft.rfft(given["u"], size), size)[..., :length]
    assert_close(selective_scan(**given, backend=backend), expected, TIGHT, "y")


def test_one_constant_state_is_a_geometric_sum(backend):
    """y_t = dt b c u (1 - q^(t+1)) / (1 - q) with q = exp(dt A), and the first state is forgotten as q^(t+1)."""
    dt, a, b, c, u, length = 0.3, -0.7, 1.5, -2.0, 0.8, 130

    def constant(*shape, value):
        return torch.full(shape, value, dtype=torch.float64)

    h = constant(1, 1, 1, value=0.4).requires_grad_()
    series = (constant(1, 1, length, value=value) for value in (u, dt))
    y, last = selective_scan(
        *series, constant(1, 1, value=a), *(constant(1, 1, length, value=value) for value in (b, c)),
        initial_state=h, return_last_state=True, backend=backend,
    )  # fmt: skip
    q = torch.exp(torch.tensor(dt * a, dtype=torch.float64))
    powers = q ** torch.arange(1, length + 1)
    expected = c * (dt * b * u * (1 - powers) / (1 - q) + 0.4 * powers)
    assert_close(y[0, 0], expected, TIGHT, "y")
    (slope,) = torch.autograd.grad(last.sum(), h)
    assert_close(slope[0, 0, 0], q**length, TIGHT, "d last / d first")


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_depends_on_no_later_one(backend, reverse):
    given = arguments(length=70, options="gate")
    series = ("u", "delta", "B", "C", "z")
    at = 66
    y = selective_scan(**given, backend=backend, reverse=reverse)[..., at]
    for name, gradient in zip(series, torch.autograd.grad(y.sum(), [given[name] for name in series]), strict=True):
        later, earlier = gradient[..., at + 1 :], gradient[..., :at]
        if reverse:
            later, earlier = earlier, later
        assert later.count_nonzero() == 0, name
        if name in ("u", "delta", "B"):
            assert earlier.count_nonzero() > 0, name
        assert gradient[..., at].count_nonzero() == gradient[..., at].numel(), name


def test_the_first_output_has_no_memory(backend):
    given = fixed(arguments(options="skip"))
    first = (given["B"] * given["C"]).sum(1)[:, :1] * (given["delta"] * given["u"])[..., 0]
    expected = first + given["D"] * given["u"][..., 0]
    assert_close(selective_scan(**given, backend=backend)[..., 0], expected, TIGHT, "y_0")


@pytest.mark.parametrize("at", [1, 63, 64, 65, 99])
@pytest.mark.parametrize("reverse", [False, True])
def test_two_halves_with_the_state_handed_over_are_the_whole(backend, at, reverse):
    given = arguments(length=100, options="all", groups=3)
    weights = noise(torch.Generator().manual_seed(5), 2, 3, 100)
    series = ("u", "delta", "B", "C", "z")
    parts = [slice(None, at), slice(at, None)][:: -1 if reverse else 1]

    def gradients(pieces):
        state, outputs = given["initial_state"], []
        for piece in pieces:
            part = {k: v[..., piece] if k in series else v for k, v in given.items()} | {"initial_state": state}
            y, state = selective_scan(**part, return_last_state=True, backend=backend, reverse=reverse)
            outputs.append(y)
        y = torch.cat(outputs[:: -1 if reverse else 1], -1)
        return y, state, *torch.autograd.grad((y * weights).sum() + state.sum(), list(given.values()))

    names = ("y", "last", *given)
    for name, found, expected in zip(names, gradients(parts), gradients([slice(None)]), strict=True):
        assert_close(found, expected, TIGHT, name)


def test_steps_of_no_time_leave_sums(backend):
    """dt → 0: y / dt → C_t · sum_{s<=t} B_s u_s; at dt = 0 nothing moves."""
    given = fixed(arguments(length=70))
    tiny = 1e-13
    state = torch.cumsum(given["B"][:, None] * given["u"][:, :, None], -1)
    expected = (given["C"][:, None] * state).sum(2)
    still = selective_scan(**given | {"delta": torch.full_like(given["delta"], tiny)}, backend=backend)
    assert_close(still / tiny, expected, 1e-10, "y / dt")
    assert selective_scan(**given | {"delta": torch.zeros_like(given["u"])}, backend=backend).count_nonzero() == 0


def test_a_state_that_forgets_at_once_acts_on_tokens(backend):
    """A → -inf: y_t = dt_t (C_t · B_t) u_t."""
    given = fixed(arguments(length=70))
    expected = given["delta"] * given["u"] * (given["B"] * given["C"]).sum(1)[:, None]
    for a in (-1e6, -torch.inf):
        forgetful = given | {"A": torch.full_like(given["A"], a)}
        assert_close(selective_scan(**forgetful, backend=backend), expected, TIGHT, "y")


def test_a_state_that_keeps_all_adds(backend):
    """A = 0: y_t = C_t · sum_{s<=t} dt_s B_s u_s."""
    given = fixed(arguments(length=70))
    state = torch.cumsum(given["B"][:, None] * (given["delta"] * given["u"])[:, :, None], -1)
    found = selective_scan(**given | {"A": torch.zeros_like(given["A"])}, backend=backend)
    assert_close(found, (given["C"][:, None] * state).sum(2), TIGHT, "y")


def test_it_is_linear_in_u_and_in_the_state_with_the_rest_frozen(backend):
    given = fixed(arguments(length=70, options="all"))
    generator = torch.Generator().manual_seed(4)
    moved = ("u", "initial_state")
    other = given | {name: noise(generator, *given[name].shape) for name in moved}
    both = given | {name: 2 * given[name] - 3 * other[name] for name in moved}
    y, y_other, y_both = (selective_scan(**g, backend=backend) for g in (given, other, both))
    assert_close(y_both, 2 * y - 3 * y_other, TIGHT, "y")


def test_reverse_is_a_scan_of_the_flipped_sequence(backend):
    given = arguments(length=70, channels=4, groups=2, options="all")
    flipped = {k: v.flip(-1) if k in ("u", "delta", "B", "C", "z") else v for k, v in given.items()}
    y, last = selective_scan(**flipped, return_last_state=True, backend=backend)
    found, found_last = selective_scan(**given, return_last_state=True, backend=backend, reverse=True)
    assert_close(found, y.flip(-1), TIGHT, "y")
    assert_close(found_last, last, TIGHT, "last")
    assert_differs(found, selective_scan(**given, backend=backend), 0.1, "y forwards")
    weights = noise(torch.Generator().manual_seed(5), *y.shape)
    expected = torch.autograd.grad((y.flip(-1) * weights).sum() + last.sum(), list(given.values()))
    gradients = torch.autograd.grad((found * weights).sum() + found_last.sum(), list(given.values()))
    for name, gradient, right in zip(given, gradients, expected, strict=True):
        assert_close(gradient, right, TIGHT, name)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_a_group_shares_what_each_of_its_channels_would_have(backend, groups):
    given = arguments(length=70, channels=6, groups=groups)
    own = {
        k: v.detach().repeat_interleave(6 // groups, 1).requires_grad_() if k in "BC" else v for k, v in given.items()
    }
    found, expected = results(given, backend=backend), results(own, backend=backend)
    for name, value in found.items():
        right = expected[name].unflatten(1, (groups, -1)).sum(2) if name in ("dB", "dC") else expected[name]
        assert_close(value, right, TIGHT, name)


def test_one_group_may_go_without_its_axis(backend):
    given = fixed(arguments(length=70))
    grouped = given | {name: given[name][:, None] for name in "BC"}
    assert torch.equal(selective_scan(**given, backend=backend), selective_scan(**grouped, backend=backend))


def test_skip_gate_and_steps_are_as_written(backend):
    """y (C · h + D u) SiLU(z), dt = softplus(delta + bias); a bias of zero with positive steps changes nothing."""
    given = fixed(arguments(length=20, options="all"))
    core = {k: v for k, v in given.items() if k not in ("D", "z", "delta_bias")}
    core["delta"] = torch.log1p(torch.exp(given["delta"] + given["delta_bias"][:, None]))
    silu = given["z"] / (1 + torch.exp(-given["z"]))
    expected = (selective_scan(**core, backend=backend) + given["D"][:, None] * given["u"]) * silu
    assert_close(selective_scan(**given, delta_softplus=True, backend=backend), expected, TIGHT, "y")
