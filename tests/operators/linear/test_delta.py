"""The chunked delta rule against its recurrence, and the laws of the delta rule."""

import pytest
import torch
import torch.nn.functional as F

from operators.linear import delta
from operators.linear.delta import delta_rule
from operators.linear.delta_reference import recurrence
from operators.testing.cases import noise
from operators.testing.checks import assert_close, assert_differs

NAMES = ("q", "k", "v", "beta", "log_decay")
TIGHT = 1e-11


def unit(*shape, seed, dtype=torch.float64):
    return F.normalize(noise(*shape, dtype=dtype, seed=seed), dim=-1)


def arguments(tokens, *, writes=1, decay=None, batch=2, heads=2, key=5, value=3, reach=2.0, strength=0.3):
    """Random arguments in float64; decays from weak to strong, β in (0, reach)."""
    q, k = (unit(batch, tokens * n, heads, key, seed=seed) for seed, n in ((1, 1), (2, writes)))
    v = noise(batch, tokens * writes, heads, value, dtype=torch.float64, seed=3)
    beta = reach * torch.sigmoid(noise(batch, tokens * writes, heads, dtype=torch.float64, seed=4))
    shape = {None: None, "head": (batch, tokens, heads), "channel": (batch, tokens, heads, key)}[decay]
    log_decay = None if shape is None else -strength * torch.exp(2 * noise(*shape, dtype=torch.float64, seed=5))
    return q, k, v, beta, log_decay


def with_gradients(function, given):
    given = [None if t is None else t.clone().requires_grad_() for t in given]
    y = function(*given)
    wanted = [t for t in given if t is not None]
    gradients = torch.autograd.grad(
        y, wanted, noise(*y.shape, seed=6).to(y.dtype), allow_unused=True, materialize_grads=True
    )
    return y.detach(), gradients


# ---------------------------------------------------------------- against the recurrence


@pytest.mark.parametrize(
    ("tokens", "writes", "decay", "strength"),
    [
        (1, 1, None, 1),
        (1, 2, "head", 1),
        (1, 1, "channel", 1),
        (90, 1, None, 1),
        (90, 1, "head", 0.3),
        (40, 1, "head", 30),
        (75, 1, "channel", 0.3),
        (40, 1, "channel", 30),
        (45, 2, None, 1),
        (47, 3, "head", 0.3),
    ],
)
def test_outputs_and_gradients_are_those_of_the_recurrence(tokens, writes, decay, strength):
    given = arguments(tokens, writes=writes, decay=decay, strength=strength)
    y, gradients = with_gradients(delta_rule, given)
    expected, wanted = with_gradients(lambda *given: recurrence(*given)[0], given)
    assert_close(y, expected, TIGHT, "y")
    for name, gradient, reference in zip(NAMES, gradients, wanted, strict=False):
        assert_close(gradient, reference, 1e-10, name)


@pytest.mark.parametrize(("decay", "writes"), [(None, 1), ("head", 1), ("channel", 1), ("head", 3)])
def test_the_chunks_length_does_not_matter(monkeypatch, decay, writes):
    given = arguments(53, writes=writes, decay=decay)
    y = delta_rule(*given)
    for length in (4, 16, 128):
        monkeypatch.setattr(delta, "CHUNK", length)
        monkeypatch.setattr(delta, "CHANNEL_CHUNK", length)
        assert_close(delta_rule(*given), y, TIGHT, f"y with chunks of {length}")


@pytest.mark.parametrize(("decay", "writes"), [(None, 1), ("head", 1), ("channel", 1), ("head", 2)])
def test_single_precision_suffices_for_thousands_of_tokens(decay, writes):
    """Keys of one sign, which overlap, as those behind SiLU do; write strengths up to 2."""
    q, k, v, beta, log_decay = arguments(4096, writes=writes, decay=decay, batch=1, heads=1, strength=0.01)
    given = [None if t is None else t.float() for t in (q.abs(), k.abs(), v, beta, log_decay)]
    y, gradients = with_gradients(delta_rule, given)
    expected, wanted = with_gradients(delta_rule, [None if t is None else t.double() for t in given])
    assert_close(y.double(), expected, 2e-6, "y")
    for name, gradient, reference in zip(NAMES, gradients, wanted, strict=False):
        assert_close(gradient.double(), reference, 2e-6, name)


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_a_token_that_forgets_everything_leaves_later_decays_exact(decay):
    """Sums of logarithms in single precision would lose a decay of 0.01 beside one of 10⁶."""
    q, k, v, beta, log_decay = arguments(60, decay=decay, batch=1)
    log_decay = torch.full_like(log_decay, -0.01)
    log_decay[:, 3] = log_decay[:, 20] = -1e6
    given = [t.float() for t in (q, k, v, beta, log_decay)]
    y, gradients = with_gradients(delta_rule, given)
    expected, wanted = with_gradients(delta_rule, [t.double() for t in given])
    assert_close(y.double(), expected, 1e-6, "y")
    for name, gradient, reference in zip(NAMES, gradients, wanted, strict=True):
        assert_close(gradient.double(), reference, 1e-6, name)


def test_half_precision_is_computed_in_single_precision():
    given = [t.bfloat16() for t in arguments(20, decay="head")]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = delta_rule(*given)
    assert y.dtype == torch.float32
    assert_close(y, delta_rule(*(t.float() for t in given)), 0, "y")


# ---------------------------------------------------------------- memory


def test_orthonormal_keys_and_full_strength_retrieve_exactly():
    """What was written last under a key is what a query by that key reads."""
    keys = torch.linalg.qr(noise(8, 8, dtype=torch.float64, seed=7))[0]
    written = torch.arange(8).repeat(3)[torch.randperm(24, generator=torch.Generator().manual_seed(0))]
    asked = torch.randint(8, (24,), generator=torch.Generator().manual_seed(1))
    v = noise(24, 4, dtype=torch.float64, seed=8)
    y = delta_rule(*(t[None, :, None] for t in (keys[asked], keys[written], v, torch.ones(24).double())))
    for t in range(24):
        places = (written[: t + 1] == asked[t]).nonzero().flatten()
        expected = v[places[-1]] if len(places) else torch.zeros_like(v[0])
        assert (y[0, t, 0] - expected).abs().max() < 1e-12


@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_without_strength_nothing_is_written_and_the_state_only_fades(decay):
    q, k, v, beta, log_decay = arguments(50, decay=decay)
    assert delta_rule(q, k, v, torch.zeros_like(beta), log_decay).count_nonzero() == 0
    q, beta = q[:, :1].expand_as(q), beta.clone()
    beta[:, 10:] = 0
    faded = torch.zeros(2, 40, 2, 5).double() if log_decay is None else log_decay[:, 10:].cumsum(1)
    faded = faded if faded.ndim == 4 else faded[..., None]
    state = recurrence(q, k, v, beta, log_decay)[1][:, 9]
    expected = torch.einsum("bthk,bhkv->bthv", q[:, 10:] * faded.exp(), state)
    assert_close(delta_rule(q, k, v, beta, log_decay)[:, 10:], expected, TIGHT, "y after the last write")


def test_decays_of_one_are_no_decay_and_alike_channels_a_heads_decay():
    q, k, v, beta, log_decay = arguments(50, decay="head")
    plain = delta_rule(q, k, v, beta)
    assert_close(delta_rule(q, k, v, beta, torch.zeros_like(log_decay)), plain, TIGHT, "y with decays of 1 per head")
    channels = log_decay[..., None].expand_as(k)
    assert_close(delta_rule(q, k, v, beta, torch.zeros_like(k)), plain, TIGHT, "y with decays of 1 per channel")
    fading = delta_rule(q, k, v, beta, log_decay)
    assert_close(delta_rule(q, k, v, beta, channels), fading, TIGHT, "y with channels that decay alike")
    assert_differs(fading, plain, 1e-2, "y with and without decay")


def test_several_writes_are_several_tokens_of_which_the_last_is_read():
    q, k, v, beta, log_decay = arguments(40, writes=3, decay="head")
    spread = F.pad(log_decay[:, :, None], (0, 0, 0, 2)).flatten(1, 2)  # a token fades before its first write only
    y = delta_rule(q.repeat_interleave(3, 1), k, v, beta, spread)
    assert_close(delta_rule(q, k, v, beta, log_decay), y[:, 2::3], TIGHT, "y")


@pytest.mark.parametrize("decay", [None, "head"])
def test_orthogonal_keys_make_it_causal_linear_attention(decay):
    """With values β v, and decay between writing and reading: nothing is written twice, so nothing is erased."""
    tokens = 12
    q, _, v, beta, log_decay = arguments(tokens, decay=decay, key=tokens)
    k = torch.eye(tokens).double()[:, None].expand(2, tokens, 2, tokens)
    elapsed = torch.zeros_like(beta) if log_decay is None else log_decay.cumsum(1)
    expected = torch.zeros_like(v)
    for t in range(tokens):
        for s in range(t + 1):
            fade = (elapsed[:, t] - elapsed[:, s]).exp()
            expected[:, t] += ((q[:, t] * k[:, s]).sum(-1) * fade * beta[:, s])[..., None] * v[:, s]
    assert_close(delta_rule(q, k, v, beta, log_decay), expected, TIGHT, "y")


def test_the_map_of_all_tokens_is_that_of_the_wy_form():
    """O = tril(Q Kᵀ) T V with T = (I + tril(diag(β) K Kᵀ, −1))⁻¹ diag(β) (arXiv 2406.06484)."""
    q, k, v, beta, _ = arguments(90, batch=1, heads=1)
    Q, K, V, b = q[0, :, 0], k[0, :, 0], v[0, :, 0], beta[0, :, 0].diag()
    inverse = torch.linalg.inv(torch.eye(90).double() + (b @ K @ K.T).tril(-1))
    assert_close(delta_rule(q, k, v, beta)[0, :, 0], (Q @ K.T).tril() @ inverse @ b @ V, TIGHT, "y")


def test_unit_keys_and_full_strength_keep_the_state_from_growing():
    """‖S_t‖² = ‖(I − k kᵀ) S_{t−1}‖² + ‖v_t‖², hence at most Σ ‖v_s‖²."""
    q, k, v, beta, _ = arguments(60)
    states = recurrence(q, k, v, torch.ones_like(beta))[1]
    kept = states[:, :-1] - k[:, 1:, :, :, None] * (k[:, 1:, :, :, None] * states[:, :-1]).sum(-2, keepdim=True)
    sizes = states.square().sum((-1, -2))
    expected = kept.square().sum((-1, -2)) + v[:, 1:].square().sum(-1)
    assert_close(sizes[:, 1:], expected, TIGHT, "squared size of the state")
    assert (sizes <= v.square().sum(-1).cumsum(1) * (1 + TIGHT)).all()


# ---------------------------------------------------------------- negative eigenvalues


def test_two_writes_of_strength_two_are_a_rotation():
    """Read off by writing the identity into the state, turning it, and asking for each of its rows."""
    size = 4
    eye, mirrors = torch.eye(size).double(), unit(2, size, seed=9)
    still = torch.zeros(size, size).double()
    first = torch.stack([eye, still], 1).flatten(0, 1)  # each token's second write has no strength
    k = torch.cat([first, mirrors, still, still])
    v = torch.cat([first, 0 * mirrors, still, still])
    beta = torch.cat([torch.tensor([1.0, 0]).repeat(size), torch.tensor([2.0, 2]), torch.zeros(2 * size)]).double()
    q = torch.cat([still, still[:1], eye])
    turned = delta_rule(*(t[None, :, None] for t in (q, k, v, beta)))[0, -size:, 0]
    assert_close(turned @ turned.T, eye, 1e-12, "R Rᵀ")
    assert abs(torch.linalg.det(turned).item() - 1) < 1e-12
    assert_differs(turned, eye, 0.1, "R and the identity")


def test_negative_eigenvalues_count_parity_at_any_length():
    """One write of 1, then the state turns round at every 1: y is −1 or 1 by the parity of the bits, exactly."""
    bits = torch.randint(2, (1, 3000, 1), generator=torch.Generator().manual_seed(2)).float()
    beta, v = 2 * bits, torch.zeros(1, 3000, 1, 1)
    beta[:, 0] = v[:, 0] = 1
    key = torch.ones(1, 3000, 1, 1)
    y = delta_rule(key, key, v, beta)[0, :, 0, 0]
    bits[:, 0] = 0
    assert torch.equal(y, 1 - 2 * (bits[0, :, 0].cumsum(0) % 2))


def test_eigenvalues_between_zero_and_one_cannot_count_parity():
    """All bits are 1: the parity alternates. But then all tokens have the same q, k, v, a and β, whatever the maps are,
    and y_t only ever rises or only ever falls: S_t sums powers of a (1 − β), in [0, 1]. Above β = 1 it alternates.
    """
    settings, tokens = 200, 40
    q, k = unit(settings, 1, 1, 4, seed=1), unit(settings, 1, 1, 4, seed=2)
    v, log_decay = noise(settings, 1, 1, 1, dtype=torch.float64, seed=3), -noise(settings, 1, 1, seed=4).double().abs()
    beta = torch.rand(settings, 1, 1, generator=torch.Generator().manual_seed(5)).double()
    for reach, alternates in ((1, False), (2, True)):
        strength = beta if reach == 1 else 1 + beta
        given = (q, k, v, strength, log_decay)
        y = delta_rule(*(t.expand(settings, tokens, *t.shape[2:]) for t in given))[:, :, 0, 0]
        change = y.diff(dim=1) / y[:, :1].abs()
        turns = (change[:, 1:] * change[:, :-1])[change[:, 1:].abs() > 1e-9]
        assert ((turns < 0) if alternates else (turns > 0)).all()
