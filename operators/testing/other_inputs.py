"""What a mixer makes of other inputs than images: videos, and the tokens of a context."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import operators
from operators import InputError, Mixer
from operators.testing.cases import CHANNELS, Case, call, noise, run, run_with_gradients, tokens
from operators.testing.checks import assert_close, assert_differs
from operators.testing.contract import Contract, assert_gradients
from operators.testing.counter import count_macs

EXACT = 1e-10
DIFFERENT = 1e-3


def hold(actual: Tensor, expected: Tensor, claimed: bool, name: str) -> None:
    """Fail unless the two agree to rounding, if `claimed`, or differ clearly, if not."""
    if claimed:
        assert_close(actual, expected, EXACT, f"{name} (claimed)")
    else:
        assert_differs(actual, expected, DIFFERENT, f"{name} (denied)")


def reads_itself(mixer: Mixer) -> Callable[[Tensor], Tensor]:
    """The mixer with its input's own tokens as context."""
    return lambda x: mixer(x, context=x.flatten(1, 2))


class OtherInputs(Contract):
    """Takes cases in the bare shell, without parameters of their own."""

    def test_reads_context(self, case: Case) -> None:
        """With a context, each token of x reads from the context's tokens alone, in whatever order they come.

        Claimed: its own tokens give x what it gets without a context; tokens that the mask leaves out have no
        influence, however large; every parameter and the context get the gradients that they get without; and
        the cost is what the counter sees. Denied: a context is refused.
        """
        grid = case.grids[1]
        if not case.card.reads_context:
            with pytest.raises(InputError, match="reads no context"):
                call(case.build(grid), tokens(grid), through=partial(case.build(grid), context=noise(2, 3, CHANNELS)))
            return
        for shell in (operators.BARE, "common"):
            mixer, x = Case(case.name, shell).perturbed(grid), tokens(grid, dtype=torch.float64)
            assert_close(reads_itself(mixer)(x), mixer(x), EXACT, "output of the own tokens as context")
            context = noise(2, 7, CHANNELS, dtype=torch.float64, seed=16)
            expected = mixer(x, context=context)
            assert_close(mixer(x, context=context.flip(1)), expected, EXACT, "output of a context in another order")
            assert_differs(mixer(x, context=-context), expected, DIFFERENT, "output of another context")
            assert_close(mixer(x.flip(1), context=context), expected.flip(1), EXACT, "output of x in another order")
            padded = torch.cat([context, torch.full_like(context[:, :2], 1e30)], 1)
            mask = torch.arange(9).expand(2, 9) < 7
            assert_close(mixer(x, context=padded, mask=mask), expected, EXACT, "output of a context with a mask")
            short = mixer(x, context=padded, mask=torch.arange(9) < torch.tensor([[7], [4]]))
            assert_close(short[1:], mixer(x[1:], context=context[1:, :4]), EXACT, "output of a shorter context")
            _, gradients = run_with_gradients(mixer, x, through=reads_itself(mixer))
            assert_gradients(gradients, run_with_gradients(mixer, x)[1], EXACT, "own tokens as context")
            cost = mixer.cost(*grid, context=7).macs
            more, fewer = (
                count_macs(
                    mixer, tokens(grid, batch=batch, dtype=torch.float64), context=context[:1].expand(batch, -1, -1)
                )
                for batch in (3, 2)
            )
            assert abs(cost - (more - fewer)) <= 1, (
                f"cost with a context: {cost} MACs, the counter saw {more - fewer:g}"
            )

    def test_axes(self, case: Case) -> None:
        """Videos (B, T, H, W, C) are served where the card says so, with the card's properties along time too.

        Claimed, in the bare and the common shell: shape, batch independence, gradients of all parameters, cost, what
        shifts and permutations of tokens do. Denied: a mixer of three axes is refused.
        """
        if 3 not in case.card.axes:
            with pytest.raises(InputError, match="serves grids of"):
                case.build((3, *case.card.min_grid))
            return
        (height, width), card = case.at_least(4, 5), case.card
        grid: tuple[int, ...] = (3, height, width)
        for shell in (operators.BARE, "common"):
            mixer, x = Case(case.name, shell).perturbed(grid), tokens(grid, dtype=torch.float64)
            y, gradients = run_with_gradients(mixer, x)
            assert y.shape == x.shape, f"a video of shape {tuple(x.shape)} became one of {tuple(y.shape)}"
            for name, gradient in gradients.items():
                assert gradient is not None, f"{name} gets no gradient from a video"
                assert gradient.count_nonzero() > 0, f"gradient of {name} from a video is zero"
            assert_close(run(mixer, x[1:]), y[1:], EXACT, "output of a video alone")
            more, fewer = (count_macs(run, mixer, tokens(grid, batch=n, dtype=torch.float64)) for n in (3, 2))
            cost = mixer.cost(*grid).macs
            assert abs(cost - (more - fewer)) <= 1, f"cost of a video: {cost} MACs, the counter saw {more - fewer:g}"
            if not card.fixed_grid:
                assert run(mixer, tokens((2, height, width + 1), dtype=torch.float64)).isfinite().all()
            with pytest.raises(InputError, match="takes"):
                run(mixer, tokens(grid[1:], dtype=torch.float64))
            later = run(mixer, x.roll(1, 1))
            hold(later, y.roll(1, 1), card.translation_equivariant == "circular", "output of a video shifted in time")
            order = torch.randperm(x[0, ..., 0].numel(), generator=torch.Generator().manual_seed(15))
            moved = run(mixer, x.flatten(1, 3)[:, order].reshape(x.shape)).flatten(1, 3)
            hold(moved, y.flatten(1, 3)[:, order], card.permutation_equivariant, "output of a video's permuted tokens")
