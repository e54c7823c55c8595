"""Which mixer stands in which block."""

from __future__ import annotations

from collections.abc import Sequence

import operators
from models.initialisation import seeded
from models.spec import MixerSpec
from operators import InputError, Mixer


def build_mixers(
    mixers: MixerSpec | Sequence[MixerSpec],
    *,
    depth: int,
    dim: int,
    grid: tuple[int, int],
    cond_dim: int | None = None,
    seed: int = 0,
) -> list[Mixer]:
    """One mixer per block, each initialised from its own stream (seed, `blocks.i.mixer`).

    Args:
        mixers: one spec for all blocks, or a pattern that is cycled over depth.
        depth: number of blocks.
        dim: channels C.
        grid: nominal grid (h, w) in tokens.
        cond_dim: width of the conditioning vector that the model gives its mixers; None if it gives none.
        seed: of the run.

    Raises:
        InputError: an empty pattern, one longer than `depth`, or a mixer that cannot be made (of a pattern, the message
            names the block).
    """
    pattern = [mixers] if isinstance(mixers, MixerSpec) else list(mixers)
    if not all(isinstance(spec, MixerSpec) for spec in pattern):
        raise InputError(f"mixers={mixers!r} must be a MixerSpec or a sequence of them")
    if not 1 <= len(pattern) <= depth:
        raise InputError(f"a pattern of {len(pattern)} mixers does not fit model.depth={depth}: give 1 to {depth}")
    built = []
    for index in range(depth):
        spec = pattern[index % len(pattern)]
        try:
            with seeded(seed, f"blocks.{index}.mixer"):
                mixer = operators.create(
                    spec.name, dim, grid=grid, cond_dim=cond_dim, shell=spec.shell, backend=spec.backend, **spec.params
                )
            if cond_dim is None and mixer.core.needs_cond:
                raise InputError(f"mixer {spec.name} is conditioned, and this model has no condition to give")
        except InputError as error:
            raise InputError(f"block {index}: {error}" if len(pattern) > 1 else str(error)) from error
        built.append(mixer)
    return built
