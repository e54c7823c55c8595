"""Log-linear attention by levels: its definition by loops, and what it becomes with equal scales."""

import itertools

import pytest
import torch

from operators.linear import levels, levels_reference
from operators.linear.decayed import scalar_decay
from operators.linear.levels import level_macs, log_linear, pair_levels
from operators.testing.cases import noise
from operators.testing.checks import assert_close, assert_differs
from operators.testing.counter import count_macs

EXACT = 1e-12


def drawn(tokens, heads=2, groups=1, batch=1):
    q, k = (noise(batch, tokens, groups, 3, dtype=torch.float64, seed=seed) for seed in (1, 2))
    v = noise(batch, tokens, heads, 4, dtype=torch.float64, seed=3)
    log_decay = -noise(batch, tokens, heads, dtype=torch.float64, seed=4).abs()
    scales = noise(batch, tokens, heads, levels.levels(tokens) + 1, dtype=torch.float64, seed=5)
    return [tensor.requires_grad_() for tensor in (q, k, v, log_decay, scales)]


@pytest.mark.parametrize(("tokens", "chunk"), [(1, 64), (2, 64), (13, 64), (13, 4), (29, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_outputs_and_gradients_are_those_of_the_definition(tokens, chunk, groups, monkeypatch):
    monkeypatch.setattr(levels, "CHUNK", chunk)
    tensors = drawn(tokens, groups=groups)
    results = []
    for function in (log_linear, levels_reference.log_linear):
        y = function(*tensors)
        grad = noise(*y.shape, dtype=y.dtype, seed=6)
        results.append((y, *torch.autograd.grad(y, tensors, grad, allow_unused=True)))
    for name, actual, expected in zip(("y", "q", "k", "v", "log_decay", "scales"), *results, strict=True):
        # A token alone has no past for a decay to act on.
        assert_close(actual, torch.zeros_like(actual) if expected is None else expected, EXACT, name)


@pytest.mark.parametrize("tokens", [1, 50, 200])
def test_equal_scales_are_the_plain_recurrence(tokens):
    q, k, v, log_decay, scales = drawn(tokens)
    expected = scalar_decay(q, k, v, forward=log_decay)
    assert_close(log_linear(q, k, v, log_decay, torch.ones_like(scales)), expected, EXACT, "y")
    if tokens > 1:
        assert_differs(log_linear(q, k, v, log_decay, scales), expected, 0.1, "y of other scales")


def test_levels_are_blocks_that_double():
    """At level l a token sees 2^(l - 1) neighbouring tokens or none, and all levels together are its past."""
    place = torch.arange(64)
    matrix = pair_levels(place[:, None], place)
    for t in range(64):
        seen = [(matrix[t, : t + 1] == level).nonzero().flatten().tolist() for level in range(7)]
        assert seen[0] == [t]
        for level in range(1, 7):
            size = 2 ** (level - 1)
            assert len(seen[level]) == (size if t & size else 0)
            if seen[level]:
                assert seen[level] == list(range(seen[level][0], seen[level][0] + size))
        assert sorted(itertools.chain(*seen)) == list(range(t + 1))


def test_costs_are_counted():
    for tokens in (13, 150, 300):
        tensors = [tensor.detach() for tensor in drawn(tokens)]
        assert count_macs(log_linear, *tensors) == level_macs(tokens, 2, 1, 3, 4)
