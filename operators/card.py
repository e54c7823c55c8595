"""What a mixer says about itself, and where it stands in a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from operators.shell.spec import ShellSpec


@dataclass(frozen=True)
class Published:
    """One published number: of which model, what, how much, read where."""

    model: str
    quantity: str
    value: float
    source: str


@dataclass(frozen=True)
class MixerCard:
    """What a mixer is and promises. Every property is verified by the contract tests, where claimed and where denied.

    The properties are those of the core alone (the bare shell), with default parameters.

    Attributes:
        code: the authors' repository and commit that the mixer was compared with, weights copied, and how far apart
            they are; or why there was no such comparison, and what the mixer was compared with instead.
        family: mixers of a kind, such as `scan`; those of this project lie in a folder of that name.
        name: the word for it in options.
        title: its name in running text.
        source: the paper (arXiv number) and the equation or section.
        year: of the paper.
        equation: what it computes, in one line.
        defaults: the mixer's own parameters and their defaults (read off the core's constructor).
        published: numbers the mixer's authors report, each with its source.
        shells: the mixer's shell presets besides `common` (`published` where the paper's dressing is known).
        preset_params: by shell preset, what the mixer's parameters that are None stand for in that preset.
        position_aware: the mixer knows where tokens are; False: the trunk must tell it.
        permutation_equivariant: permuting tokens permutes outputs.
        translation_equivariant: `circular` (wrapped shifts), `interior` (away from the border) or None.
        linear: linear in its input.
        causal_along: the scan order along which no output sees a later token, or None.
        axes: how many axes its grids may have: 2, images (B, H, W, C); 3, videos (B, T, H, W, C).
        fixed_grid: parameters or buffers depend on the grid, which must be given at construction and then met.
        extensive: the output's scale grows with the number of tokens.
        reads_context: serves `mixer(x, context=tokens)`, which reads from other tokens than those of x.
        fp32_core: the core computes in float32 under autocast.
        min_grid: smallest height and width.
        state_param: the mixer's integer parameter in which its state is affine; None: no parameter changes its state.
        backends: names `backend=` takes besides `auto`, best first.
        exempt: contract tests it is exempt from (`name`, or `name[shell preset]`), each with its reason.
        check: raises `InputError` for parameters (all of them, as keywords, and `backend`) that cannot be, whatever the
            mixer's place; from a module without torch, so that a wrong word is answered before torch is imported.
    """

    name: str
    title: str
    source: str
    year: int
    equation: str
    position_aware: bool
    permutation_equivariant: bool
    translation_equivariant: Literal["circular", "interior"] | None
    linear: bool
    backends: tuple[str, ...]
    code: str = ""
    family: str = ""
    causal_along: str | None = None
    axes: tuple[int, ...] = (2,)
    fixed_grid: bool = False
    extensive: bool = False
    reads_context: bool = False
    fp32_core: bool = False
    min_grid: tuple[int, int] = (1, 1)
    state_param: str | None = None
    published: tuple[Published, ...] = ()
    shells: Mapping[str, ShellSpec] = field(default_factory=dict)
    preset_params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
    check: Callable[..., object] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """Where a core stands.

    Attributes:
        dim: channels C of the mixer's input x.
        width: channels D of the value field u.
        grid: nominal (H, W), or None.
        cond_dim: width of the conditioning vector, or None.
        axes: 2 for images, 3 for videos.
        frames: nominal number of frames of a video, or None.
        block_index: how many blocks with this mixer come before that of the core in its stage of a trunk; 0 elsewhere.
    """

    dim: int
    width: int
    grid: tuple[int, int] | None = None
    cond_dim: int | None = None
    axes: int = 2
    frames: int | None = None
    block_index: int = 0
