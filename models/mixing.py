"""Which mixer stands in which block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import operators
from models.initialisation import seeded
from models.spec import Mixers, MixerSpec, StageMixers
from operators import InputError, Mixer


@dataclass(frozen=True)
class MixerPlace:
    """Where a mixer stands: channels C and nominal grid (h, w), in tokens, of its block.

    `cond_dim` is the width of the conditioning vector that the model gives the mixer; None if it gives none.
    """

    dim: int
    grid: tuple[int, int]
    cond_dim: int | None = None


def assign(mixers: Mixers, depths: Sequence[int]) -> list[int]:
    """For each block, the number (in `models.spec.listed`) of the spec whose mixer stands in it.

    Args:
        mixers: one spec for all blocks, a pattern that is cycled over all blocks, or a pattern for each stage.
        depths: blocks of each stage.

    Raises:
        InputError: an empty pattern, one longer than its blocks, or other stages than the trunk has.
    """
    if isinstance(mixers, StageMixers):
        if len(mixers.stages) != len(depths):
            raise InputError(f"mixers for {len(mixers.stages)} stages do not fit a trunk that has {len(depths)}")
        assigned, first = [], 0
        for number, (stage, depth) in enumerate(zip(mixers.stages, depths, strict=True)):
            if len(stage) > depth:
                raise InputError(f"a pattern of {len(stage)} mixers does not fit the {depth} blocks of stage {number}")
            assigned += [first + index % len(stage) for index in range(depth)]
            first += len(stage)
        return assigned
    depth = sum(depths)
    pattern = [mixers] if isinstance(mixers, MixerSpec) else list(mixers)
    if not all(isinstance(spec, MixerSpec) for spec in pattern):
        raise InputError(f"mixers={mixers!r} must be a MixerSpec or a sequence of them")
    if not 1 <= len(pattern) <= depth:
        raise InputError(f"a pattern of {len(pattern)} mixers does not fit model.depth={depth}: give 1 to {depth}")
    return [index % len(pattern) for index in range(depth)]


def build_mixers(
    specs: Sequence[MixerSpec],
    assigned: Sequence[int],
    places: Sequence[MixerPlace],
    *,
    seed: int = 0,
) -> list[Mixer]:
    """One mixer per block, each initialised from its own stream (seed, `blocks.i.mixer`).

    Args:
        specs: that there are.
        assigned: for each block, the number of its spec.
        places: of each block.
        seed: of the run.

    Raises:
        InputError: a mixer that cannot be made (of several blocks that differ, the message names the block).
    """
    built = []
    for index, (number, place) in enumerate(zip(assigned, places, strict=True)):
        spec = specs[number]
        before = sum(specs[assigned[i]].name == spec.name and places[i] == place for i in range(index))
        try:
            with seeded(seed, f"blocks.{index}.mixer"):
                mixer = operators.create(
                    spec.name,
                    place.dim,
                    grid=place.grid,
                    cond_dim=place.cond_dim,
                    shell=spec.shell,
                    backend=spec.backend,
                    block_index=before,
                    **spec.params,
                )
            if place.cond_dim is None and mixer.core.needs_cond:
                raise InputError(f"mixer {spec.name} is conditioned, and this model has no condition to give")
        except InputError as error:
            several = len(specs) > 1 or len(set(places)) > 1
            raise InputError(f"block {index}: {error}" if several else str(error)) from error
        built.append(mixer)
    return built
