"""Arrows from linear attention and its relatives."""

from __future__ import annotations

from collections.abc import Callable

import torch

import operators
from operators.linear.products import mixed
from operators.testing.cases import noise, run
from operators.testing.checks import assert_close

WIDTH = 8


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


@torch.no_grad()
def run_core(mixer, u, x):
    return mixer.core(u, x=x)


def large_features(mixer):
    """Keeps ε, which differs between kinds of linear attention, out of sight."""
    with torch.no_grad():
        mixer.core.qk.bias.fill_(1e4)
    return mixer


def mlla_without_positions_is_linear_attention():
    mixer = large_features(bare("mlla", heads=2, rope=False))
    assert_close(run(mixer, image()), run(like(bare("linear_attention", heads=2), mixer), image()), 1e-13, "y")


def mlla_of_constant_features_is_the_mean():
    mixer, x = large_features(bare("mlla", heads=2, rope=False)), image()
    with torch.no_grad():
        mixer.core.qk.weight.zero_()
    assert_close(run(mixer, x), x.mean((1, 2), keepdim=True).expand_as(x), 1e-13, "y")


def rala_of_uniform_weights_is_mlla():
    mixer = bare("rala", heads=2, rope=False)
    mixer.core.weights = lambda q, k: torch.ones_like(k[..., :1])
    assert_close(run(mixer, image()), run(like(bare("mlla", heads=2, rope=False), mixer), image()), 1e-14, "y")


def relu_attention_of_width_one_is_an_average_for_those_who_ask():
    mixer, x = bare("linear_attention", heads=WIDTH, feature_map="relu"), image()
    with torch.no_grad():
        q, k = mixer.core.qk(x).relu().chunk(2, dim=-1)
    average = (k * x).sum((1, 2), keepdim=True) / k.sum((1, 2), keepdim=True)
    assert_close(run(mixer, x), average * (q > 0), 1e-13, "y")


def linear_and_softmax_attention_to_equal_keys_are_the_same():
    mixers = bare("linear_attention", heads=2), bare("attention", heads=2)
    for mixer in mixers:
        with torch.no_grad():
            mixer.core.qk.weight[WIDTH:] = 0
    assert_close(run(mixers[0], image()), run(mixers[1], image()), 1e-13, "y")


def homm_of_equal_chunks_is_pom():
    """With open gates and far above zero, where both activations are the identity."""
    homm, pom = bare("homm"), bare("pom", clamp=None)
    x = 10 + image()[..., :4].abs().repeat(1, 1, 1, 2)
    with torch.no_grad():
        for mixer in (homm, pom):
            mixer.core.gate.weight.zero_()
            mixer.core.gate.bias.fill_(50)
        pom.core.coefficients.copy_(torch.eye(2).repeat_interleave(4, dim=0))
    assert_close(run(homm, x), run(pom, x), 1e-13, "y")


def homm_of_order_two_is_unnormalised_attention_with_heads_of_width_one():
    mixer, x = bare("homm"), 10 + image().abs()
    k, v = x.chunk(2, dim=-1)
    q = mixer.core.selection(x)[..., 4:]
    heads = (part.flatten(1, 2).mT[..., None] for part in (q, k, v))
    expected = mixed(*heads)[..., 0].mT.reshape(q.shape)
    assert_close(run(mixer, x)[..., 4:], expected, 1e-13, "second chunk")


def lightnet_of_one_key_is_a_global_weighted_mean():
    mixer, x = bare("lightnet", heads=1, key_width=1), image()
    with torch.no_grad():
        q, k = mixer.core.qk(x).split(1, dim=-1)
    weights = k.exp() / k.exp().sum((1, 2), keepdim=True)
    assert_close(run(mixer, x), q * q.sigmoid() * (weights * x).sum((1, 2), keepdim=True), 1e-13, "y")


def lightnet_to_equal_keys_is_linear_attention_times_a_gain():
    mixers = bare("lightnet", heads=2), bare("linear_attention", heads=2)
    for mixer in mixers:
        with torch.no_grad():
            mixer.core.qk.weight[WIDTH:] = 0
    x = image()
    with torch.no_grad():
        q, _ = mixers[0].core.queries_keys(x, x)
    gain = (q * q.sigmoid()).sum(-1).transpose(1, 2).reshape(2, 5, 7, 2).repeat_interleave(4, dim=-1)
    assert_close(run(mixers[0], x), gain * run(mixers[1], x), 1e-13, "y")


def polaformer_of_power_one_is_the_absolute_product_for_equal_halves():
    """Σ over both streams before normalisation: |q| · |k|; after it, a mean of the two streams by their masses."""
    mixer, x = bare("polaformer", heads=1, alpha=0), image()
    x = x[..., :4].repeat(1, 1, 1, 2)
    with torch.no_grad():
        mixer.core.scale.zero_()
        q, k = (part[:, 0] for part in mixer.core.queries_keys(x, x))
    same, opposite = run(mixer, x).flatten(1, 2).chunk(2, dim=-1)
    products, absolute = q @ k.mT, q.abs() @ k.abs().mT
    mass = [((absolute + sign * products) / 2).sum(-1, keepdim=True) for sign in (1, -1)]
    v = x.flatten(1, 2)[..., :4]
    assert_close(mass[0] * same - mass[1] * opposite, products @ v, 1e-5, "signed products")
    assert_close(mass[0] * same + mass[1] * opposite, absolute @ v, 1e-5, "absolute products")


def focal_of_the_global_gate_alone_is_a_query_times_one_vector():
    mixer, x = bare("focal", levels=2), image()
    with torch.no_grad():
        mixer.core.maps.weight[WIDTH:-1] = 0
        mixer.core.maps.bias[WIDTH:-1] = 0
        maps, context = mixer.core.maps(x), mixer.core.contexts(x)[-1]
        expected = maps[..., :WIDTH] * mixer.core.modulator(maps[..., -1:] * context)
    assert_close(run(mixer, x), expected, 1e-14, "y")


def retention_of_equal_tokens_is_a_separable_exponential_blur():
    """q = k = 0: γ^|Δrow| γ^|Δcolumn|, each row of weights over its sum; both forms are the same then."""
    x = image()
    for form in ("full", "decomposed"):
        mixer = bare("retention_2d", heads=1, slowest=1.5, form=form)
        with torch.no_grad():
            mixer.core.qk.weight.zero_()
            mixer.core.qk.bias.zero_()
        blurs = []
        for length in (5, 7):
            place = torch.arange(length, dtype=torch.float64)
            weights = (1 - 2**-1.5) ** (place[:, None] - place).abs()
            blurs.append(weights / weights.sum(-1, keepdim=True))
        expected = torch.einsum("ir,jc,brcd->bijd", *blurs, x)
        assert_close(run(mixer, x), expected, 1e-13, f"y, {form}")


def retention_without_decay_is_softmax_attention():
    mixer = bare("retention_2d", heads=2, slowest=64, rope=False)
    assert_close(run(mixer, image()), run(like(bare("attention", heads=2), mixer), image()), 1e-13, "y")


def decomposed_retention_without_decay_is_axial_attention():
    mixer = bare("retention_2d", heads=2, slowest=64, rope=False, form="decomposed")
    attention, x = like(bare("attention", heads=2), mixer), image()
    rows = torch.stack([run_core(attention, x[:, i : i + 1], x[:, i : i + 1]) for i in range(5)], dim=1)[:, :, 0]
    expected = torch.stack([run_core(attention, rows[:, :, j : j + 1], x[:, :, j : j + 1]) for j in range(7)], dim=2)
    assert_close(run(mixer, x), expected[:, :, :, 0], 1e-13, "y")


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("mlla, no rope -> linear_attention", mlla_without_positions_is_linear_attention),
    ("mlla, constant features -> mean", mlla_of_constant_features_is_the_mean),
    ("rala, uniform weights -> mlla", rala_of_uniform_weights_is_mlla),
    ("linear_attention relu, heads of width 1 -> mean", relu_attention_of_width_one_is_an_average_for_those_who_ask),
    ("linear_attention, equal keys -> attention", linear_and_softmax_attention_to_equal_keys_are_the_same),
    ("homm order 2, equal chunks -> pom", homm_of_equal_chunks_is_pom),
    ("homm order 2 -> mixed, width 1", homm_of_order_two_is_unnormalised_attention_with_heads_of_width_one),
    ("lightnet, one key -> weighted mean", lightnet_of_one_key_is_a_global_weighted_mean),
    ("lightnet, equal keys -> linear_attention", lightnet_to_equal_keys_is_linear_attention_times_a_gain),
    ("polaformer, power 1 -> signed products", polaformer_of_power_one_is_the_absolute_product_for_equal_halves),
    ("retention_2d, q = k = 0 -> separable blur", retention_of_equal_tokens_is_a_separable_exponential_blur),
    ("retention_2d, no decay -> attention", retention_without_decay_is_softmax_attention),
    ("retention_2d decomposed, no decay -> axial", decomposed_retention_without_decay_is_axial_attention),
    ("focal, global gate -> mean", focal_of_the_global_gate_alone_is_a_query_times_one_vector),
]
