"""Arrows from decayed recurrences: `ssd`, `vssd`, `hydra`, `mamba3`, `log_linear`, `gla` and `lion`."""

import math

import torch
import torch.nn.functional as F

from operators import scan
from operators.mixers.ordered import Terms
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make

EXACT = 1e-12
GRID = (5, 7)


def set_to(value, *tensors):
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(torch.as_tensor(value, dtype=tensor.dtype).expand_as(tensor))


def first_branch(name, **params):
    mixer = make(name, orders=["row"], **params)
    return mixer, mixer.core.branches[0]


def same(actual, expected):
    assert_close(actual.detach(), expected.detach(), EXACT, "y")


def as_sequence(x):
    return x.flatten(1, 2)


def causal(q, k, v):
    """Causal linear attention without a normaliser: Σ_{s≤t} (q_t · k_s) v_s, for q, k (B, N, K) and v (B, N, D)."""
    return (q @ k.mT).tril() @ v


def s6_with_one_rate_is_ssd():
    """S6 whose A and steps are the same for all states and channels of a head."""
    mixer, branch = first_branch("ssd", state_dim=3, heads=2)
    x = image(*GRID)
    v, B, C, step = branch.maps(as_sequence(x), as_sequence(x))
    wide = 3  # channels of a head
    A = -branch.A_log.exp().repeat_interleave(wide)[:, None].expand(6, 3)
    delta = step.repeat_interleave(wide, dim=-1)
    y = scan.selective_scan(
        v.flatten(2).mT, delta.mT, A, B.mT, C.mT, branch.D.repeat_interleave(wide), backend="reference"
    )
    same(as_sequence(run(mixer, x)), y.mT)


def ssd_without_decay_is_causal_linear_attention():
    mixer, branch = first_branch("ssd", state_dim=3, heads=1)
    set_to(-200.0, branch.A_log)
    x = image(*GRID)
    v, B, C, step = branch.maps(as_sequence(x), as_sequence(x))
    same(as_sequence(run(mixer, x)), causal(C, B, (step[..., None] * v).flatten(2)) + branch.D * v.flatten(2))


def ssd_from_both_ends_without_decay_is_vssd():
    """Minus each token's own term, which both directions count."""
    vssd = make("vssd", state_dim=3, heads=2)
    set_to(0.0, vssd.core.A_log)  # the weights are the steps
    x = image(*GRID)
    total = 0
    for order in ("row", "row_r"):
        ssd = make("ssd", orders=[order], state_dim=3, heads=2)
        branch = ssd.core.branches[0]
        set_to(vssd.core.project.weight, branch.project.weight)
        set_to(vssd.core.step_bias, branch.step_bias)
        set_to(-200.0, branch.A_log)
        set_to(0.0, branch.D)
        total = total + run(ssd, x)
    B, C, weight = vssd.core.maps(x)
    v = as_sequence(x).unflatten(-1, (2, -1))
    own = ((B * C).sum(-1)[..., None, None] * weight[..., None] - vssd.core.D[:, None]) * v
    same(total, run(vssd, x) + own.flatten(2).view(x.shape))


def vssd_of_equal_weights_is_a_mean_of_linear_attention():
    mixer = make("vssd", state_dim=3, heads=1, normalise="mean")
    set_to(0.0, mixer.core.A_log, mixer.core.project.weight[6:])
    set_to(math.log(math.expm1(1)), mixer.core.step_bias)  # m = softplus(·) = 1
    x = image(*GRID)
    B, C, _ = mixer.core.maps(x)
    v = as_sequence(x)
    same(as_sequence(run(mixer, x)), C @ (B.mT @ v) / v.shape[1] + mixer.core.D * v)


def gla_of_one_gate_per_head_is_ssd():
    """SSD with A = −1, whose steps enter through the decay alone."""
    mixer, branch = first_branch("gla", heads=1, state_dim=3)
    set_to(branch.decay.weight[:1].clone(), branch.decay.weight)
    set_to(branch.decay.bias[:1].clone(), branch.decay.bias)
    x = image(*GRID)
    q, k, v, log_decay = branch.terms(as_sequence(x), as_sequence(x))
    assert_close(log_decay, log_decay[..., :1].expand_as(log_decay), 0, "decays of a head")
    ssd, duality = first_branch("ssd", heads=1, state_dim=3)
    step = -log_decay[..., 0]
    set_to(0.0, duality.A_log, duality.D)
    duality.maps = lambda _v, _x: (v / step[..., None], k[:, :, 0], q[:, :, 0], step)
    same(run(mixer, x), run(ssd, x))


def gla_without_gates_is_causal_linear_attention():
    mixer, branch = first_branch("gla", heads=1, state_dim=3, temperature=1.0)
    set_to(0.0, branch.decay.weight)
    set_to(200.0, branch.decay.bias)
    x = image(*GRID)
    q, k = branch.query_key(as_sequence(x)).chunk(2, dim=-1)
    same(as_sequence(run(mixer, x)), causal(q, k, as_sequence(x)) / 3**0.5)


def hydra_without_its_way_back_is_ssd_shifted_by_one_token():
    hydra = make("hydra", state_dim=3, heads=2)
    core = hydra.core
    ssd, branch = first_branch("ssd", state_dim=3, heads=2)
    set_to(0.0, core.project.weight[6:12], core.D, core.diagonal.weight, branch.D)
    set_to(torch.cat([core.project.weight[:6], core.project.weight[12:14]]), branch.project.weight)
    set_to(core.step_bias, branch.step_bias)
    set_to(core.A_log, branch.A_log)
    x = image(*GRID)
    shifted = F.pad(as_sequence(run(ssd, x))[:, :-1], (0, 0, 1, 0))
    same(as_sequence(run(hydra, x)), shifted)


def hydra_without_decay_is_of_low_rank_beside_its_diagonal():
    mixer = make("hydra", state_dim=3, heads=1)
    set_to(-200.0, mixer.core.A_log)
    x = image(*GRID)
    v, ahead, back = mixer.core.terms(x, x)
    parts = [(t.q[:, :, 0], t.k[:, :, 0], t.v[:, :, 0]) for t in (ahead, back)]
    (q, k, u), (q_back, k_back, u_back) = parts
    lower = F.pad(causal(q, k, u)[:, :-1], (0, 0, 1, 0))
    upper = F.pad(((q_back @ k_back.mT).triu() @ u_back)[:, 1:], (0, 0, 0, 1))
    gain = mixer.core.D + mixer.core.diagonal(v.flatten(2))
    same(as_sequence(run(mixer, x)), lower + upper + gain * v.flatten(2))


def lion_s_of_constant_gates_is_lion_d():
    s, d = (make("lion", heads=2, variant=variant) for variant in ("s", "d"))
    set_to(s.core.query_key.weight, d.core.query_key.weight)
    set_to(s.core.query_key.bias, d.core.query_key.bias)
    set_to(0.0, s.core.select.weight)
    set_to(-d.core.decay[0], s.core.select.bias)  # 1 − σ(−z) = σ(z)
    x = image(*GRID)
    same(run(s, x), run(d, x))


def lion_without_decay_is_normalised_linear_attention():
    mixer = make("lion", heads=1, variant="d")
    set_to(200.0, mixer.core.decay)
    x = image(*GRID)
    q, k = (t.flatten(1, 2)[:, :, 0] for t in mixer.core.features(x))
    v = as_sequence(x)
    same(as_sequence(run(mixer, x)), q @ (k.mT @ v) / (q @ k.sum(1)[..., None] + 1e-6 * 6**0.5))


def lion_lit_is_linear_attention_of_elu_plus_one():
    mixer = make("lion", heads=1, variant="lit")
    x = image(*GRID)
    q, k = (F.elu(t) + 1 for t in mixer.core.query_key(as_sequence(x)).chunk(2, dim=-1))
    weights = q @ k.mT / 6**0.5
    same(as_sequence(run(mixer, x)), weights @ as_sequence(x) / (weights.sum(-1, keepdim=True) + 1e-6))


def lion_of_no_memory_is_the_identity():
    mixer = make("lion", heads=2, variant="d")
    set_to(-200.0, mixer.core.decay)
    x = image(*GRID)
    own = (mixer.core.features(x)[0] * mixer.core.features(x)[1]).sum(-1, keepdim=True)
    same(run(mixer, x), (own / (own + 1e-6 * 3**0.5) * x.unflatten(-1, (2, -1))).flatten(3))


def lion_d_of_equal_features_is_a_symmetric_exponential_filter():
    """Of both sums, the numerator is the filter of the image, the denominator that of ones."""
    mixer = make("lion", heads=1, variant="d")
    set_to(0.0, mixer.core.query_key.weight, mixer.core.query_key.bias)
    x = image(*GRID)
    place = torch.arange(35)
    kernel = torch.sigmoid(mixer.core.decay[0, 0]) ** (place[:, None] - place).abs()
    scale = 6**-0.5
    expected = kernel @ as_sequence(x) * scale / (kernel.sum(1, keepdim=True) * scale + 1e-6)
    same(as_sequence(run(mixer, x)), expected)


def mamba3_of_the_euler_rule_without_rotation_is_ssd():
    mamba3, branch = first_branch("mamba3", state_dim=3, heads=1, rotated=0)
    set_to(0.0, branch.project.weight[8])
    branch_maps = branch.maps

    def euler(x):
        B, C, step, log_decay, blend = branch_maps(x)
        return B, C, step, log_decay, torch.ones_like(blend)

    branch.maps = euler
    ssd, duality = first_branch("ssd", state_dim=3, heads=1)
    x = image(*GRID)
    B, C, step, log_decay, _ = euler(as_sequence(x))
    set_to(branch.D, duality.D)
    v = as_sequence(x).unflatten(-1, (1, -1))
    duality._terms = lambda *_: Terms(C, B, step[..., None] * v, log_decay)
    same(run(mamba3, x), run(ssd, x))


def log_linear_of_equal_scales_is_ssd():
    mixer, branch = first_branch("log_linear", state_dim=3, heads=2)
    set_to(0.0, branch.level_gain)  # all scales are softplus(0) = log 2
    ssd, duality = first_branch("ssd", state_dim=3, heads=2)
    for name, parameter in duality.named_parameters():
        set_to(branch.get_parameter(name), parameter)
    x = image(*GRID)
    skip = (branch.D[:, None] * as_sequence(x).unflatten(-1, (2, -1))).flatten(2)
    same(as_sequence(run(mixer, x)) - skip, math.log(2) * (as_sequence(run(ssd, x)) - skip))


ARROWS = [
    ("s6 -> ssd", s6_with_one_rate_is_ssd),
    ("ssd -> linear attention", ssd_without_decay_is_causal_linear_attention),
    ("ssd -> vssd", ssd_from_both_ends_without_decay_is_vssd),
    ("vssd -> linear attention", vssd_of_equal_weights_is_a_mean_of_linear_attention),
    ("gla -> ssd", gla_of_one_gate_per_head_is_ssd),
    ("gla -> linear attention", gla_without_gates_is_causal_linear_attention),
    ("hydra -> ssd", hydra_without_its_way_back_is_ssd_shifted_by_one_token),
    ("hydra -> low rank", hydra_without_decay_is_of_low_rank_beside_its_diagonal),
    ("lion s -> lion d", lion_s_of_constant_gates_is_lion_d),
    ("lion -> linear attention", lion_without_decay_is_normalised_linear_attention),
    ("lion lit -> linear attention", lion_lit_is_linear_attention_of_elu_plus_one),
    ("lion -> identity", lion_of_no_memory_is_the_identity),
    ("lion d -> exponential filter", lion_d_of_equal_features_is_a_symmetric_exponential_filter),
    ("mamba3 -> ssd", mamba3_of_the_euler_rule_without_rotation_is_ssd),
    ("log_linear -> ssd", log_linear_of_equal_scales_is_ssd),
]
