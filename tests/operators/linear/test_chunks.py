"""Operations with gradients of their own, beside the same by autograd: outputs, first and second derivatives."""

import pytest
import torch
from torch.autograd import gradgradcheck

from operators.linear.channels import compare, compare_plain
from operators.linear.chunks import between, between_plain, weigh, weigh_plain
from operators.mixers.positions import turn_plain, turn_together
from operators.testing.cases import noise
from operators.testing.checks import assert_close

EXACT = 1e-13


def leaf(*size, seed=0, negative=False):
    drawn = noise(*size, dtype=torch.float64, seed=seed)
    return (-drawn.abs() if negative else drawn).requires_grad_()


def assert_alike(fast, plain, tensors):
    """Both functions of the tensors, which may return several."""
    results = []
    for function in (fast, plain):
        made = function(*tensors)
        made = made if isinstance(made, tuple) else (made,)
        gradients = [noise(*y.shape, dtype=y.dtype, seed=number) for number, y in enumerate(made, 10)]
        results.append([*made, *torch.autograd.grad(made, tensors, gradients)])
    for number, (actual, expected) in enumerate(zip(*results, strict=True)):
        assert_close(actual, expected, EXACT, f"result {number}")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (2, 2), (8, 1), (16, 2)])
def test_tokens_compared_through_decays_of_channels(tokens, rows, reverse):
    tensors = [leaf(3, tokens, rows, 5), leaf(3, tokens, 5, seed=1), leaf(3, tokens, 5, seed=2, negative=True)]
    assert_alike(lambda *t: compare(*t, reverse), lambda *t: compare_plain(*t, reverse), tensors)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("values", [5, 7])
def test_states_between_chunks(values, reverse):
    """Values as wide as keys, and wider."""
    tensors = [leaf(4, 2, 3, width, seed=seed) for seed, width in enumerate((5, 5, values))]
    tensors.append(leaf(4, 2, 5, 1, seed=3))
    assert_alike(lambda *t: between(*t, reverse), lambda *t: between_plain(*t, reverse), tensors)


@pytest.mark.parametrize(("ahead", "back", "own"), [(1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 1)])
@pytest.mark.parametrize(("groups", "heads"), [(1, 3), (2, 2)])
def test_weights_of_tokens(groups, heads, ahead, back, own):
    sums = [leaf(2, heads, 6, seed=seed, negative=True).detach().cumsum(-1).requires_grad_() for seed in (1, 2)]
    there = [sums[0] if ahead else None, sums[1] if back else None, leaf(2, heads, 6, seed=3) if own else None]

    def given(function):
        def call(*tensors):
            scores, *others = tensors
            return function(scores, *(None if t is None else others.pop(0) for t in there))

        return call

    assert_alike(given(weigh), given(weigh_plain), [leaf(2, groups, 6, 6), *(t for t in there if t is not None)])


@pytest.mark.parametrize("size", [4, 7])
def test_rotations(size):
    tensors = [leaf(2, 1, 5, 2), leaf(2, 3, 5, size, seed=1), leaf(2, 3, 5, size, seed=2)]
    assert_alike(turn_together, turn_plain, tensors)


def test_second_derivatives():
    assert gradgradcheck(compare, [leaf(1, 2, 1, 2), leaf(1, 2, 2, seed=1), leaf(1, 2, 2, seed=2, negative=True)])
    assert gradgradcheck(between, [*(leaf(3, 2, 2, seed=seed) for seed in range(3)), leaf(3, 2, 1, seed=3)])
    assert gradgradcheck(weigh, [leaf(1, 2, 2), leaf(1, 2, seed=1), leaf(1, 2, seed=2), leaf(1, 2, seed=3)])
    assert gradgradcheck(turn_together, [leaf(3, 1), leaf(3, 3, seed=1)])
