"""Decayed recurrences in chunks: the plain recurrence, whatever the length, the direction and the strength of decay."""

import pytest
import torch

from operators.linear import decayed, decayed_reference
from operators.linear.decayed import channel_decay, channel_macs, scalar_decay, scalar_macs
from operators.testing.cases import noise
from operators.testing.checks import assert_close, assert_finite
from operators.testing.counter import count_macs

KEY, VALUE = 3, 4
EXACT = 1e-12


def drawn(tokens, heads, groups, *, per_channel=False, strength=1.0, batch=2, dtype=torch.float64):
    """q, k, v and the negative logarithms of decays forwards and backwards."""
    q, k = (noise(batch, tokens, groups, KEY, dtype=dtype, seed=seed) for seed in (1, 2))
    v = noise(batch, tokens, heads, VALUE, dtype=dtype, seed=3)
    shape = (batch, tokens, heads, KEY) if per_channel else (batch, tokens, heads)
    decays = [-strength * noise(*shape, dtype=dtype, seed=seed).abs() for seed in (4, 5)]
    return [tensor.requires_grad_() for tensor in (q, k, v, *decays)]


def assert_same(y, expected, tensors, tolerance=EXACT):
    assert_close(y, expected, tolerance, "y")
    grad = noise(*y.shape, dtype=y.dtype, seed=6)
    pairs = (torch.autograd.grad(result, tensors, grad) for result in (y, expected))
    for index, (actual, wanted) in enumerate(zip(*pairs, strict=True)):
        assert_close(actual, wanted, 100 * tolerance, f"gradient of argument {index}")


@pytest.mark.parametrize("tokens", [1, 35, 131])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (2, 2)])
def test_one_decay_per_head(tokens, heads, groups):
    q, k, v, ahead, back = drawn(tokens, heads, groups)

    def plain(log_decay, reverse):
        return decayed_reference.recurrence(q, k, v, log_decay, reverse=reverse)

    own = (q * k).sum(-1).repeat_interleave(heads // groups, dim=2)[..., None] * v
    assert_same(scalar_decay(q, k, v, forward=ahead), plain(ahead, False), [q, k, v, ahead])
    assert_same(scalar_decay(q, k, v, backward=back), plain(back, True), [q, k, v, back])
    both = scalar_decay(q, k, v, forward=ahead, backward=back)
    assert_same(both, plain(ahead, False) + plain(back, True) - own, [q, k, v, ahead, back])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tokens", [1, 7, 35, 131])
def test_one_decay_per_key_channel(tokens, reverse):
    q, k, v, log_decay, _ = drawn(tokens, 2, 2, per_channel=True)
    expected = decayed_reference.recurrence(q, k, v, log_decay, reverse=reverse)
    assert_same(channel_decay(q, k, v, log_decay, reverse=reverse), expected, [q, k, v, log_decay])


def test_it_is_masked_attention():
    q, k, v, log_decay, _ = drawn(20, 2, 2)
    c = log_decay.cumsum(1).movedim(1, -1)
    mask = (c[..., :, None] - c[..., None, :]).tril().exp().tril()
    scores = torch.einsum("bthk,bshk->bhts", q, k) * mask
    expected = torch.einsum("bhts,bshv->bthv", scores, v)
    assert_same(scalar_decay(q, k, v, forward=log_decay), expected, [q, k, v, log_decay])


@pytest.mark.parametrize("reverse", [False, True])
def test_equal_decays_of_all_channels_are_one_decay_per_head(reverse):
    q, k, v, log_decay, _ = drawn(100, 2, 2)
    expected = scalar_decay(q, k, v, **{"backward" if reverse else "forward": log_decay})
    y = channel_decay(q, k, v, log_decay[..., None].expand(-1, -1, -1, KEY), reverse=reverse)
    assert_same(y, expected, [q, k, v, log_decay])


def test_the_length_of_chunks_does_not_matter(monkeypatch):
    q, k, v, ahead, back = drawn(50, 2, 2)
    per_channel = drawn(50, 2, 2, per_channel=True)[3]
    expected = scalar_decay(q, k, v, forward=ahead, backward=back), channel_decay(q, k, v, per_channel)
    for chunk, power in ((1, 1), (7, 2), (25, 8), (64, 128)):
        monkeypatch.setattr(decayed, "CHUNK", chunk)
        monkeypatch.setattr(decayed, "CHANNEL_CHUNKS", (power,))
        assert_close(scalar_decay(q, k, v, forward=ahead, backward=back), expected[0], EXACT, f"chunks of {chunk}")
        assert_close(channel_decay(q, k, v, per_channel), expected[1], EXACT, f"chunks of {power}")


@pytest.mark.parametrize("strength", [0.0, 1e-3, 1.0, 300.0])
@pytest.mark.parametrize("per_channel", [False, True])
def test_float32_is_accurate_over_4096_tokens(per_channel, strength):
    single = drawn(4096, 1, 1, per_channel=per_channel, strength=strength, batch=1, dtype=torch.float32)
    double = [tensor.detach().double().requires_grad_() for tensor in single]
    results = []
    for q, k, v, log_decay, _ in (single, double):
        y = channel_decay(q, k, v, log_decay) if per_channel else scalar_decay(q, k, v, forward=log_decay)
        wanted = [q, k, v, log_decay]
        results.append((y, *torch.autograd.grad(y, wanted, noise(*y.shape, dtype=y.dtype, seed=6))))
    for name, actual, expected in zip(("y", "q", "k", "v", "log_decay"), *results, strict=True):
        assert_close(actual.double(), expected, 1e-5, name)


@pytest.mark.parametrize("per_channel", [False, True])
def test_nothing_overflows(per_channel):
    q, k, v, log_decay, _ = drawn(200, 1, 1, per_channel=per_channel, strength=1e5, dtype=torch.float32)
    for reverse in (False, True):
        if per_channel:
            y = channel_decay(q, k, v, log_decay, reverse=reverse)
        else:
            y = scalar_decay(q, k, v, **{"backward" if reverse else "forward": log_decay})
        assert_close(y, (q * k).sum(-1, keepdim=True) * v, 1e-4, "each token's own term, which is left")
        for gradient in torch.autograd.grad(y.square().sum(), [q, k, v, log_decay]):
            assert_finite(gradient, "gradient")


def test_costs_are_counted_and_linear():
    for tokens in (35, 131):
        q, k, v, ahead, back = (t.detach() for t in drawn(tokens, 4, 2, batch=1))
        assert count_macs(scalar_decay, q, k, v, forward=ahead) == scalar_macs(tokens, 4, 2, KEY, VALUE)
        both = count_macs(scalar_decay, q, k, v, forward=ahead, backward=back)
        assert both == scalar_macs(tokens, 4, 2, KEY, VALUE, directions=2)
        q, k, v, log_decay, _ = (t.detach() for t in drawn(tokens, 2, 2, batch=1, per_channel=True))
        assert count_macs(channel_decay, q, k, v, log_decay) == channel_macs(tokens, 2, KEY, VALUE)
    for macs in (lambda n: scalar_macs(n, 4, 1, 64, 64), lambda n: channel_macs(n, 4, 32, 64)):
        assert macs(8192) == pytest.approx(2 * macs(4096), rel=0.02)
