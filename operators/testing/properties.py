"""The properties on a mixer's card, each verified where the card claims it and refuted where the card denies it.

They are those of the bare core with default parameters, measured in float64 after 0.3 randn was added to all of
its parameters: what still holds then is a law of the operator and not of its initialisation.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import InputError, Mixer
from operators.runtime.torch_private import TorchDispatchMode, operator_name, tree_leaves
from operators.scan import orders
from operators.testing.cases import CHANNELS, Case, Grid, call, noise, run, tokens
from operators.testing.contract import MixerContract
from operators.testing.other_inputs import EXACT, OtherInputs, hold

SHIFT = (1, 2)
END, FAR = 4, 20
"""Columns at either end of an image, and all of its columns: the ends are out of reach of a window."""


def is_token_wise(mixer: Mixer, x: Tensor) -> bool:
    """Whether no output depends on another token's input."""
    changed = x.clone()
    changed[:, 0, 0] = noise(len(x), CHANNELS, dtype=x.dtype, seed=11)
    difference = (run(mixer, changed) - run(mixer, x)).flatten(1, 2)
    return bool(difference[:, 1:].abs().max() < EXACT)


class CardContract(OtherInputs):
    """Takes cases in the bare shell, without parameters of their own."""

    def test_card(self, case: Case) -> None:
        """The card says what the mixer is, and its exemptions name tests and give reasons."""
        card = case.card
        for text in (card.title, card.source, card.equation):
            assert text.strip(), "title, source and equation must be given"
        assert 1900 < card.year < 2100, f"year {card.year}"
        assert card.backends, "a mixer has at least one backend"
        for name, reason in card.exempt.items():
            test, _, shell = name.partition("[")
            assert test in MixerContract.promises() + CardContract.promises(), (
                f"exempt from {name!r}, which is not a contract test"
            )
            assert not shell or shell.removesuffix("]") in ("common", *card.shells), (
                f"exempt from {name!r}, whose shell is not its own"
            )
            assert reason.strip(), f"exempt from {name} without a reason"

    def test_permutation_equivariant(self, case: Case) -> None:
        """Permuting tokens permutes outputs."""
        for grid in case.grids:
            moved, expected = _permuted(case, grid)
            hold(moved, expected, case.card.permutation_equivariant, "output of permuted tokens")

    def test_position_aware(self, case: Case) -> None:
        """A mixer that does not know where tokens are gives each its output wherever it stands."""
        moved, expected = _permuted(case, case.grids[1])
        hold(moved, expected, not case.card.position_aware, "output without regard to position")

    def test_translation_equivariant(self, case: Case) -> None:
        """`circular`: wrapped shifts commute. `interior`: they do not, but outputs far from the border move along.

        `interior` is measured on two windows of one larger image, one shifted against the other by a row and two
        columns: six tokens or more from the border both give the same. So it means a finite reach, well below that.
        """
        claim = case.card.translation_equivariant
        for grid in case.grids:
            mixer, x = case.perturbed(grid), tokens(grid, dtype=torch.float64)
            expected = run(mixer, x).roll(SHIFT, (1, 2))
            hold(run(mixer, x.roll(SHIFT, (1, 2))), expected, claim == "circular", "output of a wrapped shift")
        if claim != "circular":
            height, width, margin = 16, 18, 6
            mixer = case.perturbed((height, width))
            image = tokens((height + SHIFT[0], width + SHIFT[1]), dtype=torch.float64)
            here = run(mixer, image[:, :height, :width])
            there = run(mixer, image[:, SHIFT[0] :, SHIFT[1] :])
            inner = here[:, margin + SHIFT[0] : height - margin, margin + SHIFT[1] : width - margin]
            same = there[:, margin : height - margin - SHIFT[0], margin : width - margin - SHIFT[1]]
            hold(inner, same, claim == "interior", "output away from the border of a shifted window")

    def test_linear(self, case: Case) -> None:
        """Superposition, up to a constant (a bias): f(ax + by) − f(0) = a(f(x) − f(0)) + b(f(y) − f(0))."""
        grid = case.grids[1]
        mixer = case.perturbed(grid)
        x, y = (tokens(grid, dtype=torch.float64, seed=seed) for seed in (2, 12))
        zero = run(mixer, torch.zeros_like(x))
        together = run(mixer, 0.7 * x - 1.9 * y) - zero
        apart = 0.7 * (run(mixer, x) - zero) - 1.9 * (run(mixer, y) - zero)
        hold(together, apart, case.card.linear, "superposition")

    def test_causal_along(self, case: Case) -> None:
        """Along the order named, later tokens never change earlier outputs; where none is named, they do on all.

        Token-wise mixers are causal along every order, which says nothing: their card names none.
        """
        grid = case.grids[1]
        mixer, x = case.perturbed(grid), tokens(grid, dtype=torch.float64)
        named = case.card.causal_along
        if is_token_wise(mixer, x):
            assert named is None, f"a token-wise mixer is causal along every order, not just {named!r}"
            return
        known = orders.names()
        assert named is None or named in known, f"causal_along={named!r}: the contract knows {', '.join(known)}"
        untouched = run(mixer, x).flatten(1, 2)
        for order in [named] if named else known:
            early, late = orders.permutation(order, grid[0], grid[1]).tensor_split(2)
            changed = x.flatten(1, 2).clone()
            changed[:, late] = noise(len(x), len(late), CHANNELS, dtype=x.dtype, seed=13)
            after = run(mixer, changed.reshape(x.shape)).flatten(1, 2)[:, early]
            hold(after, untouched[:, early], named is not None, f"earlier outputs along {order}, later tokens changed")

    def test_fixed_grid(self, case: Case) -> None:
        """The grid must be given and shapes parameters or buffers, or it need not be given and does not."""
        shapes = []
        for grid in (case.grids[1], case.grids[2]):
            mixer = case.build(grid)
            shapes.append([(name, t.shape) for name, t in [*mixer.named_parameters(), *mixer.named_buffers()]])
        assert (shapes[0] != shapes[1]) == case.card.fixed_grid, (
            "fixed_grid, but no parameter or buffer has the grid's size"
        )
        if case.card.fixed_grid:
            with pytest.raises(InputError):
                case.build(None)
        else:
            case.build(None)

    def test_extensive(self, case: Case) -> None:
        """Four copies of the image side by side make the output about four times as large, or not at all."""
        small, large = case.at_least(16, 16), case.at_least(32, 32)
        x = tokens(small, dtype=torch.float64) + noise(1, 1, 1, CHANNELS, dtype=torch.float64, seed=14)
        mixer = case.perturbed(small)
        grown = case.perturbed(large) if case.card.fixed_grid else mixer
        sizes = [run(m, image).square().mean().sqrt().item() for m, image in ((mixer, x), (grown, x.tile(1, 2, 2, 1)))]
        growth = sizes[1] / sizes[0]
        if case.card.extensive:
            assert growth > 3, f"extensive is claimed, but four times the tokens give {growth:.2f} times the output"
        else:
            assert growth < 2.5, f"extensive is denied, but four times the tokens give {growth:.2f} times the output"

    def test_fp32_core(self, case: Case) -> None:
        """Under autocast, with a bfloat16 value field, an fp32 core works in float32.

        Claimed: no transform, exponential, logarithm, trigonometric function, running sum or scan inside the core takes
        a number of half precision, and something is computed in float32. Products may run in the autocast type.
        Denied: something is computed in half precision, or nothing is computed.
        """
        mixer = Case(case.name, "common").build(case.grids[2]).train()
        watch = PrecisionWatch(mixer.core)
        with torch.autocast("cpu", dtype=torch.bfloat16), watch:
            call(mixer, tokens(case.grids[2]))
        if case.card.fp32_core:
            delicate = sorted(op for op in watch.half if DELICATE.search(op))
            assert not delicate, f"fp32_core is claimed, but in half precision ran {', '.join(delicate)}"
            assert watch.single, "fp32_core is claimed, but nothing ran in float32"
        else:
            assert watch.half or not watch.single, (
                f"fp32_core is denied, but all ran in float32: {sorted(watch.single)}"
            )

    def test_projection_cost(self, case: Case) -> None:
        """What the cost calls projection is done for each token alone, hence proportional to their number."""
        (height, width), larger = case.at_least(4, 4), case.at_least(8, 12)
        mixers = [case.build(grid) for grid in ((height, width), larger)]
        few, many = mixers[0].cost(height, width), mixers[1].cost(*larger)
        expected = few.projection_macs * larger[0] * larger[1] / (height * width)
        assert many.projection_macs == expected, f"projections: {many.projection_macs} MACs, by tokens {expected:g}"

    def test_state(self, case: Case) -> None:
        """What one end of an image learns of the other has passed through at most `state_elements` numbers.

        The Jacobian of the outputs at one end of a row by the inputs at the other, far beyond the reach of a window,
        has no more than that many singular values above rounding. And a pass reaches every number that is held: there
        are no more of them than multiply-accumulates and elements of the value field together.
        """
        height, width = grid = case.at_least(1, FAR)
        mixer, x = case.perturbed(grid), tokens(grid, batch=1, dtype=torch.float64)

        def far(first: Tensor) -> Tensor:
            return call(mixer, torch.cat([first, x[:, :, END:]], dim=2))[:, :, -END:].flatten()

        jacobian = torch.autograd.functional.jacobian(far, x[:, :, :END].clone()).flatten(1)
        values = torch.linalg.svdvals(jacobian)
        passed = int((values > EXACT * run(mixer, x).square().mean().sqrt()).sum())
        cost = mixer.cost(height, width)
        assert passed <= cost.state_elements, (
            f"state_elements={cost.state_elements}, but {passed} numbers pass from one end of the image to the other"
        )
        most = cost.macs + height * width * mixer.core.site.width
        assert cost.state_elements <= most, f"state_elements={cost.state_elements}, but a pass reaches {most} numbers"

    def test_state_param(self, case: Case) -> None:
        """The parameter that the card names adds to the state in equal steps, and no other integer changes it."""
        named, grid = case.card.state_param, case.at_least(5, 7)
        assert named is None or named in case.card.defaults, f"state_param={named!r} is no parameter of the mixer"

        def state(**params: Any) -> int:
            return case.build(grid, **params).cost(*grid).state_elements

        if named is not None:
            first, second, fourth = (state(**{named: size}) for size in (1, 2, 4))
            assert second > first, f"state_param={named!r}: the state is {first} at 1 and {second} at 2"
            assert fourth - second == 2 * (second - first), f"state_param={named!r}: {first}, {second}, …, {fourth}"
        integers = {key: value for key, value in case.card.defaults.items() if type(value) is int and key != named}
        for key, value in integers.items():
            with suppress(InputError):  # a value that cannot be says nothing
                changed, usual = state(**{key: value + 2}), state()
                assert changed == usual, (
                    f"{key} is not the state_param, but changes the state from {usual} to {changed}"
                )


DELICATE = re.compile(
    r"aten::(exp|exp2|expm1|log|log2|log10|log1p|logsumexp|softplus|cumsum|cumprod|logcumsumexp|sin|cos|tan|sinh|cosh)_?$"
    r"|aten::_fft_|operator_zoo::.*scan"
)
_MOVES = re.compile(
    r"aten::(_to_copy|copy_?|clone|detach|empty.*|zeros.*|ones.*|full.*|new_.*|cat|stack|.*_like|arange)$"
)


class PrecisionWatch(TorchDispatchMode):
    """Notes which operators take half (`half`) and which single precision (`single`) while `core` is being called.

    It sits below autocast and sees the types that the kernels get. Views, copies and casts do not count.
    """

    def __init__(self, core: torch.nn.Module) -> None:
        super().__init__()
        self.half: set[str] = set()
        self.single: set[str] = set()
        self._inside = False
        core.register_forward_pre_hook(lambda *_: self._set(True))
        core.register_forward_hook(lambda *_: self._set(False))

    def _set(self, inside: bool) -> None:
        self._inside = inside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operator_name(func)
        if self._inside and not func.is_view and not _MOVES.search(name):
            taken = {leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            if taken & {torch.bfloat16, torch.float16}:
                self.half.add(name)
            elif taken & {torch.float32, torch.complex64}:
                self.single.add(name)
        return func(*args, **(kwargs or {}))


def _permuted(case: Case, grid: Grid) -> tuple[Tensor, Tensor]:
    """Output of permuted tokens, and permuted output of the tokens."""
    mixer, x = case.perturbed(grid), tokens(grid, dtype=torch.float64)
    order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(15))
    moved = run(mixer, x.flatten(1, 2)[:, order].reshape(x.shape))
    return moved, run(mixer, x).flatten(1, 2)[:, order].reshape(x.shape)
