"""Arrows from delta rules and from fast weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from operators.linear import decayed_reference
from operators.linear.products import mixed
from operators.mixers.delta.ttt import SCALE
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

TINY = 2.0**-40


def copied(source, name, **params):
    """A mixer of another name with those parameters of `source` that both have."""
    mixer = make(name, **params)
    own = mixer.state_dict()
    shared = {key: value for key, value in source.state_dict().items() if key in own and value.shape == own[key].shape}
    mixer.load_state_dict(shared, strict=False)
    return mixer


def a_gate_of_one_makes_gated_deltanet_deltanet() -> None:
    gated, x = make("gated_deltanet"), image(3, 4)
    delta = copied(gated, "deltanet")
    assert_differs(gated(x), delta(x), 1e-2, "y before")
    set_to(-torch.inf, *(branch.decay.A_log for branch in gated.core.branches))
    assert_same_function(gated, delta, x)


def channels_that_decay_alike_make_kda_gated_deltanet() -> None:
    kda = make("kda", heads=2)
    gated = copied(kda, "gated_deltanet", heads=2)
    with torch.no_grad():
        for vector, scalar in zip(kda.core.branches, gated.core.branches, strict=True):
            first, second = vector.decay.linears()
            for parameter in (second.weight, vector.decay.bias):  # per head, the first channel's for all
                heads = parameter.view(2, 3, -1)
                heads.copy_(heads[:, :1].expand_as(heads))
            scalar.decay.linears()[0].weight.copy_(second.weight[::3] @ first.weight)
            scalar.decay.bias.copy_(vector.decay.bias[::3])
            scalar.decay.A_log.copy_(vector.decay.A_log)
    assert_same_function(kda, gated, image(3, 4))


def one_step_makes_deltaproduct(gated: bool, name: str) -> None:
    product = make("deltaproduct", steps=1, gated=gated)
    delta = copied(product, name, negative_eigenvalues=True)
    assert product.state_dict().keys() == delta.state_dict().keys()
    assert_same_function(product, delta, image(3, 4))


def nothing_is_erased_under_orthonormal_keys(name: str) -> None:
    """A rule of orthonormal keys is causal linear attention with values β v and the rule's decay."""
    mixer = make(name, 12, heads=1, orders=["row"])
    set_to(2.0**30 * torch.eye(12), mixer.core.branches[0].query_key.weight[12:])
    x, u = torch.eye(12).double().view(1, 3, 4, 12), image(3, 4, width=12, batch=1)
    keys = mixer.core.written(u, x).k
    assert torch.equal(keys[0, :, 0], x[0].flatten(0, 1))
    assert_same_function(lambda u: mixer.core(u, x=x), lambda u: without_erasing(mixer, u, x), u)


def writes_that_are_weak_erase_nothing(name: str) -> None:
    """β → 0 with β v fixed, for keys of any kind: what is erased is β of what is held, what is written is not."""
    mixer = make(name, 12, heads=2, orders=["row"])
    x, u = image(3, 5, width=12), image(3, 5, width=12, seed=2)
    x[..., 0] = 1
    set_to(-28.0, mixer.core.branches[0].strength.weight[:, 0])
    strength = mixer.core.written(u, x).beta
    assert 0 < strength.min() < 0.5 * strength.max() < 1e-10
    assert_same_function(lambda u: mixer.core(u / TINY, x=x), lambda u: without_erasing(mixer, u / TINY, x), u, 1e-9)


def without_erasing(mixer, u, x):
    """The plain recurrence S ← diag(a) S + β k vᵀ with all that the mixer writes and reads."""
    q, k, v, beta, log_decay = mixer.core.written(u, x)
    log_decay = torch.zeros_like(beta) if log_decay is None else log_decay
    return decayed_reference.recurrence(q, k, beta[..., None] * v, log_decay).reshape(u.shape)


def ttt_without_a_step_is_a_map_of_each_token_and_a_fixed_convolution() -> None:
    mixer = make("ttt", 12, heads=2, rate=0)
    core, d = mixer.core, mixer.core.head_width

    def still(x):
        q = core.qk(x)[..., :12]
        outputs = []
        for h in range(2):
            a, b = (q[..., h * d : (h + 1) * d] @ core.weight[h]).chunk(2, -1)
            outputs.append(a * b * b.sigmoid())
        convolved = F.conv2d(q[..., 2 * d :].movedim(-1, 1), core.kernel.view(d, 1, 3, 3), padding=1, groups=d)
        return torch.cat([*outputs, convolved.movedim(1, -1)], -1)

    assert_same_function(mixer, still, image(3, 5, width=12))


def ttt_without_first_weights_is_gated_linear_attention() -> None:
    """W_1 = 0 and values so small that clipping is the identity: y = (q S) ⊙ SiLU(q W_2), S of linear attention."""
    mixer = make("ttt", 12, heads=3, convolution=False)
    core, d = mixer.core, mixer.core.head_width
    set_to(0.0, core.weight[..., :d])
    second = core.weight[..., d:]

    def attention(x):
        q, k = core.qk(x).flatten(1, 2).unflatten(-1, (2, 3, d)).permute(2, 0, 3, 1, 4)
        v = x.flatten(1, 2).unflatten(-1, (3, d)).transpose(1, 2)
        y = SCALE * mixed(q, k, v * F.silu(k @ second)) * F.silu(q @ second)
        return y.transpose(1, 2).reshape(x.shape)

    assert_same_function(lambda x: core(TINY * x, x=x) / TINY, attention, image(3, 5, width=12), 1e-10)


def a_step_without_strength_is_no_step() -> None:
    product, x = make("deltaproduct", steps=2, heads=2), image(3, 4)
    x[..., 0] = 1
    single = make("deltaproduct", steps=1, heads=2)
    with torch.no_grad():
        for two, one_step in zip(product.core.branches, single.core.branches, strict=True):
            two.strength.weight[2:] = 0
            two.strength.weight[2:, 0] = -1e4  # the first channel is 1: the second write's strength is σ(−10⁴) = 0
            one_step.query_key.weight.copy_(two.query_key.weight[:12])
            one_step.strength.weight.copy_(two.strength.weight[:2])
            one_step.decay.load_state_dict(two.decay.state_dict())
    assert_close(product(x), single(x), 1e-12, "y")


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("Gated DeltaProduct, n_h = 1 -> Gated DeltaNet", partial(one_step_makes_deltaproduct, True, "gated_deltanet")),
    ("DeltaProduct, n_h = 1 -> DeltaNet", partial(one_step_makes_deltaproduct, False, "deltanet")),
    ("DeltaProduct, second beta = 0 -> one step less", a_step_without_strength_is_no_step),
    ("Gated DeltaNet, g = 1 -> DeltaNet", a_gate_of_one_makes_gated_deltanet_deltanet),
    ("KDA, scalar gate -> gated delta rule", channels_that_decay_alike_make_kda_gated_deltanet),
    *(
        (f"{title}, orthonormal keys -> {becomes}", partial(nothing_is_erased_under_orthonormal_keys, name))
        for title, name, becomes in (
            ("DeltaNet", "deltanet", "causal linear attention"),
            ("Gated DeltaNet", "gated_deltanet", "SSD"),
            ("KDA", "kda", "GLA"),
        )
    ),
    ("Gated DeltaNet, erase term removed -> SSD", partial(writes_that_are_weak_erase_nothing, "gated_deltanet")),
    ("KDA, erase term removed -> GLA", partial(writes_that_are_weak_erase_nothing, "kda")),
    ("TTT, lr 0 -> SwiGLU + DW_3", ttt_without_a_step_is_a_map_of_each_token_and_a_fixed_convolution),
    ("TTT, w1 = 0, no clipping -> gated linear attention", ttt_without_first_weights_is_gated_linear_attention),
]
