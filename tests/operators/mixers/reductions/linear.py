"""Arrows from linear attention and its relatives, and from mixers that pool."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

import operators
from operators.linear.products import mixed
from operators.testing.cases import noise
from tests.operators.mixers.drawn import assert_same_function, set_to

WIDTH = 8
EXACT = 1e-13
LOST_IN_EPS = 1e-4
"""Where the ε of two denominators differ."""


def bare(name, *, scale=0.5, **params):
    """A mixer of random weights in the bare shell."""
    mixer = operators.create(name, WIDTH, grid=(5, 7), shell=operators.BARE, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return mixer


def image():
    return noise(2, 5, 7, WIDTH, dtype=torch.float64, seed=9)


def like(mixer, other):
    """`mixer` with the parameters of `other` that have its names."""
    mixer.load_state_dict(other.state_dict(), strict=False)
    return mixer


def mean(x):
    return x.mean((1, 2), keepdim=True).expand_as(x)


def with_large_features(mixer):
    """Keeps ε, which differs between kinds of linear attention, out of sight."""
    set_to(1e4, mixer.core.qk.bias)
    return mixer


def mlla_without_positions_is_linear_attention():
    mixer = with_large_features(bare("mlla", heads=2, rope=False))
    assert_same_function(mixer, like(bare("linear_attention", heads=2), mixer), image(), 1e-10)


def mlla_of_constant_features_is_the_mean_and_its_convolution():
    mixer = with_large_features(bare("mlla", heads=2, rope=False, lepe=True))
    set_to(0.0, mixer.core.qk.weight)
    local = mixer.core.local

    def pooled(x):
        y = F.conv2d(x.movedim(-1, 1), local.weight, local.bias, padding=1, groups=WIDTH)
        return mean(x) + y.movedim(1, -1)

    assert_same_function(mixer, pooled, image(), 1e-10)


def rala_of_uniform_weights_is_mlla():
    """Without rotations, whose frequencies differ; RALA's q and k are of x, which is u here."""
    mixer = bare("rala", heads=2, rope=False)
    mixer.core.weights = lambda q, k: torch.ones_like(k[..., :1])
    assert_same_function(mixer, like(bare("mlla", heads=2, rope=False), mixer), image(), EXACT)


def relu_attention_of_width_one_is_an_average_for_those_who_ask():
    """The normaliser takes the size of ReLU(q) away again, and leaves whether it is zero."""
    mixer = bare("linear_attention", heads=WIDTH, feature_map="relu")

    def average(x):
        q, k = mixer.core.qk(x).relu().chunk(2, dim=-1)
        return (k * x).sum((1, 2), keepdim=True) / k.sum((1, 2), keepdim=True) * (q > 0)

    assert_same_function(mixer, average, image(), 1e-11)


def linear_and_softmax_attention_to_equal_keys_are_the_same():
    mixers = bare("linear_attention", heads=2), bare("attention", heads=2)
    for mixer in mixers:
        set_to(0.0, mixer.core.qk.weight[WIDTH:])
    assert_same_function(*mixers, image(), EXACT)


def pom_of_degree_one_is_gated_mean_pooling():
    """Of tokens between zero and the clamp, where the activation is the identity."""
    mixer = bare("pom", degree=1)
    x = image().abs().clamp(0.01, 5.9)
    assert_same_function(mixer, lambda x: mixer.core.selection(x) * mean(mixer.core.coefficients[:, 0] * x), x, EXACT)


def homm_of_equal_chunks_is_pom():
    """With open gates and far above zero, where both activations are the identity."""
    homm, pom = bare("homm"), bare("pom", clamp=None)
    for mixer in (homm, pom):
        set_to(0.0, mixer.core.gate.weight)
        set_to(50.0, mixer.core.gate.bias)
    set_to(torch.eye(2).repeat_interleave(4, dim=0), pom.core.coefficients)
    half = 10 + image()[..., :4].abs()

    def doubled(mixer):
        return lambda half: mixer(half.repeat(1, 1, 1, 2))

    assert_same_function(doubled(homm), doubled(pom), half, EXACT)


def homm_of_order_two_is_unnormalised_attention_with_heads_of_width_one():
    """Of its second chunk, far above zero, where GELU is the identity."""
    mixer = bare("homm")

    def attention(x):
        k, v = x.chunk(2, dim=-1)
        q = mixer.core.selection(x)[..., 4:]
        heads = (part.flatten(1, 2).mT[..., None] for part in (q, k, v))
        return mixed(*heads)[..., 0].mT.reshape(q.shape)

    assert_same_function(lambda x: mixer(x)[..., 4:], attention, 10 + image().abs(), EXACT)


def lightnet_is_what_its_causal_form_gives_the_last_token():
    """S_t = e^(z_{t−1} − z_t) S_{t−1} + e^(k_t − z_t) v_tᵀ, z the running logarithm of the sum of e^k."""
    mixer = bare("lightnet", heads=1)

    def causal(x):
        q, k = (part[:, 0] for part in mixer.core.queries_keys(x, x))
        z, v = k.logcumsumexp(1), x.flatten(1, 2)
        state = (k[:, 0] - z[:, 0]).exp()[:, :, None] * v[:, 0, None]
        for t in range(1, v.shape[1]):
            kept, written = (z[:, t - 1] - z[:, t]).exp(), (k[:, t] - z[:, t]).exp()
            state = kept[:, :, None] * state + written[:, :, None] * v[:, t, None]
        return (F.silu(q[:, -1, None]) @ state)[:, 0]

    assert_same_function(lambda x: mixer(x)[:, -1, -1], causal, image(), 1e-12)


def lightnet_is_efficient_attention_with_another_activation_of_the_queries():
    """arXiv 1812.01243, equation 5: ρ_q(Q) (ρ_k(K)ᵀ V), softmaxes over tokens and, for LightNet, SiLU on q."""
    mixer = bare("lightnet", heads=2)

    def efficient(x):
        q, k = (part.unflatten(-1, (2, 4)) for part in mixer.core.qk(x).flatten(1, 2).chunk(2, dim=-1))
        v = x.flatten(1, 2).unflatten(-1, (2, 4))
        context = torch.einsum("bnhk,bnhv->bhkv", k.exp() / k.exp().sum(1, keepdim=True), v)
        return torch.einsum("bnhk,bhkv->bnhv", q * q.sigmoid(), context).reshape(x.shape)

    assert_same_function(mixer, efficient, image(), 1e-12)


def lightnet_is_hsm_ssd_without_its_channel_mixing():
    """B = 1, C = SiLU(q), Δ = k up to a constant, and maps of the state that change nothing."""
    lightnet, hsm_ssd = bare("lightnet", heads=1, key_width=3), bare("hsm_ssd", state_dim=3)
    core = hsm_ssd.core
    identity = torch.eye(WIDTH)
    set_to(torch.cat([identity, torch.zeros_like(identity)]), core.enter.weight)
    set_to(identity, core.leave.weight)
    set_to(1.0, core.skip)
    set_to(lightnet.core.qk.weight[3:], core.project.weight[6:])
    made = core.maps

    def maps(x):
        _, _, weights = made(x)
        return torch.ones_like(weights), F.silu(lightnet.core.qk(x)[..., :3].flatten(1, 2)), weights

    core.maps = maps
    assert_same_function(lightnet, hsm_ssd, image(), 1e-12)


def lightnet_of_one_key_is_a_global_weighted_mean():
    mixer = bare("lightnet", heads=1, key_width=1)

    def average(x):
        q, k = mixer.core.qk(x).split(1, dim=-1)
        weights = k.exp() / k.exp().sum((1, 2), keepdim=True)
        return q * q.sigmoid() * (weights * x).sum((1, 2), keepdim=True)

    assert_same_function(mixer, average, image(), EXACT)


def lightnet_to_equal_keys_is_linear_attention_times_a_gain():
    lightnet, attention = bare("lightnet", heads=2), bare("linear_attention", heads=2)
    for mixer in (lightnet, attention):
        set_to(0.0, mixer.core.qk.weight[WIDTH:])

    def scaled(x):
        q, _ = lightnet.core.queries_keys(x, x)
        gain = F.silu(q).sum(-1).transpose(1, 2).reshape(2, 5, 7, 2).repeat_interleave(4, dim=-1)
        return gain * attention(x)

    assert_same_function(lightnet, scaled, image(), EXACT)


def polaformer_of_power_one_is_the_absolute_product_for_equal_halves():
    """Σ over both streams before normalisation: |q| · |k|; after it, a mean of the two streams by their masses."""
    mixer = bare("polaformer", heads=1, alpha=0)
    half = image()[..., :4]

    def queries_keys(half):
        x = half.repeat(1, 1, 1, 2)
        return (part[:, 0] for part in mixer.core.queries_keys(x, x))

    set_to(0.0, mixer.core.scale)

    def streams(half, sign):
        """Both halves of y, each times the sum of its weights: same + sign · opposite."""
        q, k = queries_keys(half)
        products, absolute = q @ k.mT, q.abs() @ k.abs().mT
        same, opposite = ((absolute + part * products).sum(-1, keepdim=True) / 2 for part in (1, -1))
        y = mixer(half.repeat(1, 1, 1, 2)).flatten(1, 2)
        return same * y[..., :4] + sign * opposite * y[..., 4:]

    def signed(half):
        q, k = queries_keys(half)
        return q @ k.mT @ half.flatten(1, 2)

    def absolute(half):
        q, k = queries_keys(half)
        return q.abs() @ k.abs().mT @ half.flatten(1, 2)

    assert_same_function(lambda half: streams(half, -1), signed, half, LOST_IN_EPS)
    assert_same_function(lambda half: streams(half, 1), absolute, half, LOST_IN_EPS)


def focal_of_the_global_gate_alone_is_a_query_times_one_vector():
    mixer = bare("focal", levels=2)
    core = mixer.core
    set_to(0.0, core.maps.weight[WIDTH:-1], core.maps.bias[WIDTH:-1])

    def gated(x):
        context = x.movedim(-1, 1)
        for conv in core.convs:
            context = F.gelu(conv(context))
        context = F.gelu(context.mean((2, 3)))[:, None, None]
        maps = core.maps(x)
        return maps[..., :WIDTH] * core.modulator(maps[..., -1:] * context)

    assert_same_function(mixer, gated, image(), EXACT)


def bi_wkv_without_distances_is_a_global_weighted_mean():
    """The same for every token: w = b = 0 leave e^k alone."""
    mixer = bare("vision_rwkv")
    set_to(0.0, mixer.core.decay, mixer.core.own)

    def average(x):
        weights = mixer.core.keys(x).view_as(x).exp()
        return ((weights * x).sum((1, 2), keepdim=True) / weights.sum((1, 2), keepdim=True)).expand_as(x)

    assert_same_function(mixer, average, image(), EXACT)


def bi_wkv_without_distances_is_lightnet():
    """Of heads of one channel, whose queries are 1 behind SiLU: Bi-WKV has none."""
    rwkv, lightnet = bare("vision_rwkv", shift=False), bare("lightnet", heads=WIDTH)
    set_to(0.0, rwkv.core.decay, rwkv.core.own, lightnet.core.qk.weight[:WIDTH])
    set_to(1.278464542761074, lightnet.core.qk.bias[:WIDTH])
    set_to(lightnet.core.qk.weight[WIDTH:].detach(), rwkv.core.key.weight)
    assert_same_function(rwkv, lightnet, image(), EXACT)


def mlstm_that_forgets_nothing_is_causal_linear_attention():
    """Without gates, over max(|n · q|, 1) and the ε of its frame, in which the greatest weight is 1."""
    mixer = bare("vil", heads=2)
    core = mixer.core
    set_to(0.0, core.gates.weight, core.gates.bias[:2])
    set_to(1e4, core.gates.bias[2:])

    def attention(x):
        u = x.flatten(1, 2)
        (q, k), (v,) = core.query_key(u), core.value(u)
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.mT / 2).tril()
        y = weights @ v / (weights.sum(-1, keepdim=True).abs().clamp(min=1) + 1e-6)
        return y.transpose(1, 2).reshape(x.shape)

    assert_same_function(mixer, attention, image(), 1e-12)


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("MLLA, no RoPE -> linear attention", mlla_without_positions_is_linear_attention),
    ("MLLA, phi constant -> global mean + LePE", mlla_of_constant_features_is_the_mean_and_its_convolution),
    ("RALA, uniform alpha -> MLLA", rala_of_uniform_weights_is_mlla),
    (
        "ReLU linear, heads of width 1 -> global weighted mean",
        relu_attention_of_width_one_is_an_average_for_those_who_ask,
    ),
    ("linear attention, equal keys -> softmax attention", linear_and_softmax_attention_to_equal_keys_are_the_same),
    ("PoM, degree 1, identity -> gated mean pooling", pom_of_degree_one_is_gated_mean_pooling),
    ("homm order 2, equal chunks -> PoM", homm_of_equal_chunks_is_pom),
    ("homm order 2 -> q * mean(k * v)", homm_of_order_two_is_unnormalised_attention_with_heads_of_width_one),
    ("LightNet causal, last token -> LightNet global", lightnet_is_what_its_causal_form_gives_the_last_token),
    ("LightNet global -> efficient attention", lightnet_is_efficient_attention_with_another_activation_of_the_queries),
    ("LightNet global -> HSM-SSD state", lightnet_is_hsm_ssd_without_its_channel_mixing),
    ("LightNet, one key -> weighted mean", lightnet_of_one_key_is_a_global_weighted_mean),
    ("LightNet, equal keys -> linear attention", lightnet_to_equal_keys_is_linear_attention_times_a_gain),
    ("PolaFormer, power 1 -> signed products", polaformer_of_power_one_is_the_absolute_product_for_equal_halves),
    ("Bi-WKV, w = u = 0 -> global weighted mean", bi_wkv_without_distances_is_a_global_weighted_mean),
    ("Bi-WKV, w = u = 0 -> LightNet global", bi_wkv_without_distances_is_lightnet),
    (
        "mLSTM, i = 0, f -> inf -> causal linear attention / max(|n q|, 1)",
        mlstm_that_forgets_nothing_is_causal_linear_attention,
    ),
    ("focal, g_L only -> global mean gate", focal_of_the_global_gate_alone_is_a_query_times_one_vector),
]
