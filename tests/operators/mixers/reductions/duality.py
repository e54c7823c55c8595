"""Arrows from decayed recurrences: `ssd`, `vssd`, `hydra`, `mamba3`, `log_linear`, `gla` and `lion`."""

import math

import torch
import torch.nn.functional as F

from operators import scan
from operators.linear.products import mixed
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

GRID = (5, 7)


def first_branch(name, **params):
    mixer = make(name, orders=["row"], **params)
    return mixer, mixer.core.branches[0]


def as_sequence(x):
    return x.flatten(1, 2)


def by_sequence(function):
    """A function of sequences (B, N, D) as one of images."""
    return lambda x: function(as_sequence(x)).view_as(x)


def causal(q, k, v):
    """Causal linear attention without a normaliser: Σ_{s≤t} (q_t · k_s) v_s, for q, k (B, N, K) and v (B, N, D)."""
    return (q @ k.mT).tril() @ v


def s6_with_one_rate_is_ssd():
    """S6 whose A and steps are the same for all states and channels of a head."""
    mixer, branch = first_branch("ssd", state_dim=3, heads=2)
    wide = 3  # channels of a head

    def s6(x):
        v, B, C, step = branch.maps(x, x)
        A = -branch.A_log.exp().repeat_interleave(wide)[:, None].expand(6, 3)
        delta = step.repeat_interleave(wide, dim=-1)
        D = branch.D.repeat_interleave(wide)
        return scan.selective_scan(v.flatten(2).mT, delta.mT, A, B.mT, C.mT, D, backend="reference").mT

    assert_same_function(mixer, by_sequence(s6), image(*GRID))


def ssd_without_decay_is_causal_linear_attention():
    mixer, branch = first_branch("ssd", state_dim=3, heads=1)
    set_to(-200.0, branch.A_log)

    def attention(x):
        v, B, C, step = branch.maps(x, x)
        return causal(C, B, (step[..., None] * v).flatten(2)) + branch.D * v.flatten(2)

    assert_same_function(mixer, by_sequence(attention), image(*GRID))


def ssd_from_both_ends_without_decay_is_vssd():
    """Minus each token's own term, which both directions count."""
    vssd = make("vssd", state_dim=3, heads=2)
    set_to(0.0, vssd.core.A_log)  # the weights are the steps
    directions = []
    for order in ("row", "row_r"):
        ssd = make("ssd", orders=[order], state_dim=3, heads=2)
        branch = ssd.core.branches[0]
        set_to(vssd.core.project.weight, branch.project.weight)
        set_to(vssd.core.step_bias, branch.step_bias)
        set_to(-200.0, branch.A_log)
        set_to(0.0, branch.D)
        directions.append(ssd)

    def with_own_terms(x):
        B, C, weight = vssd.core.maps(x)
        v = as_sequence(x).unflatten(-1, (2, -1))
        own = ((B * C).sum(-1)[..., None, None] * weight[..., None] - vssd.core.D[:, None]) * v
        return vssd(x) + own.flatten(2).view(x.shape)

    assert_same_function(lambda x: directions[0](x) + directions[1](x), with_own_terms, image(*GRID))


def vssd_of_equal_weights_is_a_mean_of_linear_attention():
    mixer = make("vssd", state_dim=3, heads=1, normalise="mean")
    set_to(0.0, mixer.core.A_log, mixer.core.project.weight[6:])
    set_to(math.log(math.expm1(1)), mixer.core.step_bias)  # m = softplus(·) = 1

    def attention(x):
        B, C, _ = mixer.core.maps(x)
        return (mixed(C, B, as_sequence(x)) + mixer.core.D * as_sequence(x)).view_as(x)

    assert_same_function(mixer, attention, image(*GRID))


def gla_of_one_gate_per_head_is_ssd():
    """SSD with A = −1, whose steps enter through the decay alone."""
    mixer, branch = first_branch("gla", heads=1, state_dim=3)
    set_to(branch.decay.weight[:1].clone(), branch.decay.weight)
    set_to(branch.decay.bias[:1].clone(), branch.decay.bias)
    ssd, duality = first_branch("ssd", heads=1, state_dim=3)
    set_to(0.0, duality.A_log, duality.D)

    def maps(v, x):
        q, k, v, log_decay = branch.terms(v, x)
        step = -log_decay[..., 0]
        return v / step[..., None], k[:, :, 0], q[:, :, 0], step

    duality.maps = maps
    assert_same_function(mixer, ssd, image(*GRID))


def gla_without_gates_is_causal_linear_attention():
    mixer, branch = first_branch("gla", heads=1, state_dim=3, temperature=1.0)
    set_to(0.0, branch.decay.weight)
    set_to(200.0, branch.decay.bias)

    def attention(x):
        q, k = branch.query_key(x).chunk(2, dim=-1)
        return causal(q, k, x) / 3**0.5

    assert_same_function(mixer, by_sequence(attention), image(*GRID))


def hydra_without_its_way_back_is_ssd_shifted_by_one_token():
    hydra = make("hydra", state_dim=3, heads=2)
    core = hydra.core
    ssd, branch = first_branch("ssd", state_dim=3, heads=2)
    set_to(0.0, core.project.weight[6:12], core.D, core.diagonal.weight, branch.D)
    set_to(torch.cat([core.project.weight[:6], core.project.weight[12:14]]), branch.project.weight)
    set_to(core.step_bias, branch.step_bias)
    set_to(core.A_log, branch.A_log)

    def shifted(x):
        return F.pad(as_sequence(ssd(x))[:, :-1], (0, 0, 1, 0)).view_as(x)

    assert_same_function(hydra, shifted, image(*GRID))


def hydra_without_decay_is_of_low_rank_beside_its_diagonal():
    """With the same B, C and steps both ways: C of the token before times B below the diagonal, of the next above it.

    The shift makes these two matrices of rank S; only where C does not change from token to token are they one.
    """
    mixer = make("hydra", state_dim=3, heads=1)
    core = mixer.core
    set_to(-200.0, core.A_log)
    set_to(core.project.weight[:6].clone(), core.project.weight[6:12])
    set_to(core.project.weight[12:13].clone(), core.project.weight[13:14])
    step_bias = core.step_bias

    def low_rank(x):
        B, C, _, _, step, _ = (x @ core.project.weight.T).split([3, 3, 3, 3, 1, 1], dim=-1)
        written = F.softplus(step + step_bias) * x
        below = F.pad(C[:, :-1], (0, 0, 1, 0)) @ B.mT
        above = F.pad(C[:, 1:], (0, 0, 0, 1)) @ B.mT
        return (below.tril(-1) + above.triu(1)) @ written + (core.D + core.diagonal(x)) * x

    assert_same_function(mixer, by_sequence(low_rank), image(*GRID))


def lion_s_of_constant_gates_is_lion_d():
    s, d = (make("lion", heads=2, variant=variant) for variant in ("s", "d"))
    set_to(s.core.query_key.weight, d.core.query_key.weight)
    set_to(s.core.query_key.bias, d.core.query_key.bias)
    set_to(0.0, s.core.select.weight)
    set_to(-d.core.decay[0], s.core.select.bias)  # 1 − σ(−z) = σ(z)
    assert_same_function(s, d, image(*GRID))


def lion_without_decay_is_normalised_linear_attention():
    mixer = make("lion", heads=1, variant="d")
    set_to(200.0, mixer.core.decay)

    def attention(x):
        q, k = (t.flatten(1, 2)[:, :, 0] for t in mixer.core.features(x))
        return (q @ (k.mT @ as_sequence(x)) / (q @ k.sum(1)[..., None] + 1e-6 * 6**0.5)).view_as(x)

    assert_same_function(mixer, attention, image(*GRID))


def lion_lit_is_linear_attention_of_elu_plus_one():
    mixer = make("lion", heads=1, variant="lit")

    def attention(x):
        q, k = (F.elu(t) + 1 for t in mixer.core.query_key(x).chunk(2, dim=-1))
        weights = q @ k.mT / 6**0.5
        return weights @ x / (weights.sum(-1, keepdim=True) + 1e-6)

    assert_same_function(mixer, by_sequence(attention), image(*GRID))


def lion_of_no_memory_is_the_identity():
    """Up to the 1e-6 that is added to the denominator, of either variant with decay."""
    for variant in ("d", "s"):
        mixer = make("lion", heads=2, variant=variant)
        if variant == "d":
            set_to(-200.0, mixer.core.decay)
        else:
            set_to(0.0, mixer.core.select.weight)
            set_to(200.0, mixer.core.select.bias)
        x = image(*GRID)
        assert_same_function(mixer, lambda x: x, x, 1e-4)
        own = (mixer.core.features(x)[0] * mixer.core.features(x)[1]).sum(-1, keepdim=True)
        exact = (own / (own + 1e-6 * 3**0.5) * x.unflatten(-1, (2, -1))).flatten(3)
        assert_close(mixer(x), exact, 1e-12, "y with what is added")


def lion_d_of_equal_features_is_a_symmetric_exponential_filter():
    """Of both sums, the numerator is the filter of the image, the denominator that of ones."""
    mixer = make("lion", heads=1, variant="d")
    set_to(0.0, mixer.core.query_key.weight, mixer.core.query_key.bias)
    place = torch.arange(35)
    kernel = torch.sigmoid(mixer.core.decay[0, 0]) ** (place[:, None] - place).abs()
    scale = 6**-0.5

    def filtered(x):
        return kernel @ x * scale / (kernel.sum(1, keepdim=True) * scale + 1e-6)

    assert_same_function(mixer, by_sequence(filtered), image(*GRID))


def mamba3_of_the_euler_rule_without_rotation_is_ssd():
    """A = −1, since its map is zero, and λ = 1 by the channel of x that is 1; B and C are Mamba-3's."""
    mamba3, branch = first_branch("mamba3", state_dim=3, heads=1, rotated=0)
    set_to(0.0, branch.project.weight[7:])
    set_to(200.0, branch.project.weight[8, 0])
    ssd, duality = first_branch("ssd", state_dim=3, heads=1)
    set_to(0.0, duality.A_log)
    set_to(branch.D, duality.D)

    def maps(v, x):
        B, C, step, _, _ = branch.maps(x)
        return v.unflatten(-1, (1, -1)), B[:, :, 0], C[:, :, 0], step

    duality.maps = maps
    x = image(*GRID)
    x[..., 0] = 1
    assert_same_function(mamba3, ssd, x)


def log_linear_of_equal_scales_is_ssd():
    mixer, branch = first_branch("log_linear", state_dim=3, heads=2)
    set_to(0.0, branch.level_gain)  # all scales are softplus(0) = log 2
    ssd, duality = first_branch("ssd", state_dim=3, heads=2)
    for name, parameter in duality.named_parameters():
        set_to(branch.get_parameter(name), parameter)

    def skip(x):
        return (branch.D[:, None] * x.unflatten(-1, (2, -1))).flatten(3)

    assert_same_function(lambda x: mixer(x) - skip(x), lambda x: math.log(2) * (ssd(x) - skip(x)), image(*GRID))


ARROWS = [
    ("S6, A shared by a head -> SSD", s6_with_one_rate_is_ssd),
    ("SSD, a = 1 -> causal linear attention", ssd_without_decay_is_causal_linear_attention),
    ("SSD forward + backward - diagonal, a = 1 -> VSSD", ssd_from_both_ends_without_decay_is_vssd),
    ("VSSD, m = 1/N -> mean linear attention", vssd_of_equal_weights_is_a_mean_of_linear_attention),
    ("GLA, scalar gate -> SSD", gla_of_one_gate_per_head_is_ssd),
    ("GLA, gate 1 -> causal linear attention", gla_without_gates_is_causal_linear_attention),
    ("Hydra, no way back, D = 0 -> shifted SSD", hydra_without_its_way_back_is_ssd_shifted_by_one_token),
    ("Hydra, A = 0, same B, C -> low rank + diagonal", hydra_without_decay_is_of_low_rank_beside_its_diagonal),
    ("LION-S, constant a -> LION-D", lion_s_of_constant_gates_is_lion_d),
    ("LION-D, a = 1 -> linear attention", lion_without_decay_is_normalised_linear_attention),
    ("LION-Lit -> linear attention of ELU + 1", lion_lit_is_linear_attention_of_elu_plus_one),
    ("LION-D and LION-S, a -> 0 -> identity on v", lion_of_no_memory_is_the_identity),
    ("LION-D, equal features -> exponential filter", lion_d_of_equal_features_is_a_symmetric_exponential_filter),
    ("Mamba-3, lambda = 1, no rotation -> SSD", mamba3_of_the_euler_rule_without_rotation_is_ssd),
    ("log-linear, equal level weights -> SSD", log_linear_of_equal_scales_is_ssd),
]
