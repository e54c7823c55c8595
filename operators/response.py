"""The impulse response of a mixer for the eye: as text, and as a picture in a file."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from operators.errors import InputError
from operators.mixer import Mixer
from operators.pictures import impulse_response
from operators.registry import core_class, create
from operators.shell.spec import BARE

DIM = 64
GRID = (15, 15)
PULSE = 0.1
"""Size of the pulse in a mixer that is not linear: small against the noise around it, large against rounding."""

BLOCKS, LETTERS = " ·░▒▓█", " .-+%@"
"""Shades from nothing to the peak, and what stands for them where the output's encoding lacks them."""
STEP = 5.0
"""Factor between a shade and the next."""

TILES = 4
"""Channels in a row of the picture, and rows of channels."""
CELL, GAP = 12, 6
"""Pixels along the side of a token, and between channels."""
NEGATIVE, ZERO, POSITIVE = (5, 48, 97), (247, 247, 247), (179, 88, 6)
"""Blue, almost white and orange: all kinds of colour vision tell them apart."""


def plainest(name: str) -> str:
    """The last backend on the card of mixer `name` that is usable here, or `auto` where none is."""
    usable = [backend for backend, reason in core_class(name).availability().items() if reason is None]
    return usable[-1] if usable else "auto"


def respond(name: str) -> tuple[Mixer, Tensor]:
    """The core of mixer `name` at its start (seed 0), and its response (H, W, C) to a pulse in the middle.

    A mixer that is not linear gets a small pulse among normal noise, because its response depends on its input. The
    plainest backend serves: it needs nothing compiled, and all backends agree.

    Raises:
        InputError: the mixer serves this grid or this width not at all.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixer = create(name, DIM, grid=GRID, cond_dim=DIM, shell=BARE, backend=plainest(name))
        cond = torch.zeros(DIM)
        if mixer.card.linear:
            return mixer, impulse_response(mixer, GRID, cond=cond)
        background = torch.randn(*GRID, DIM)
        return mixer, impulse_response(mixer, GRID, size=PULSE, background=background, cond=cond)


def magnitude(response: Tensor) -> Tensor:
    """Root mean square over the channels of a response (H, W, C)."""
    return response.square().mean(-1).sqrt()


def as_text(values: Tensor, shades: str = BLOCKS) -> str:
    """Rows of shades of the magnitudes (H, W), two letters a token: each shade is `STEP` times the one before."""
    peak = float(values.max())
    rows = []
    for row in values.tolist():
        levels = [_level(value / peak, len(shades)) if value > 0 else 0 for value in row]
        rows.append("".join(2 * shades[level] for level in levels))
    return "\n".join(rows)


def _level(share: float, shades: int) -> int:
    return max(0, shades - 1 + math.floor(math.log(share, STEP) + 1e-6)) if share < 1 else shades - 1


def write_picture(path: Path, response: Tensor) -> None:
    """Write a response (H, W, C) as a picture: channels evenly spaced, each over its own peak, blue below zero.

    Colours follow the square root, which shows what is faint.

    Raises:
        InputError: the file cannot be written, or its ending names no kind of picture.
    """
    from PIL import Image

    height, width, channels = response.shape
    chosen = torch.linspace(0, channels - 1, min(channels, TILES**2)).round().long()
    page = torch.full((TILES, height * CELL + GAP, TILES, width * CELL + GAP, 3), 255.0)
    for place, channel in enumerate(chosen.tolist()):
        values = response[..., channel]
        values = values / values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)
        tile = _coloured(values.sign() * values.abs().sqrt())
        large = tile.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
        page[place // TILES, : height * CELL, place % TILES, : width * CELL] = large
    picture = Image.fromarray(page.flatten(2, 3).flatten(0, 1).round().byte().numpy())
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--picture {path}: {error}") from error


def _coloured(values: Tensor) -> Tensor:
    """RGB (H, W, 3) of values (H, W) from -1 to 1."""
    zero = torch.tensor(ZERO, dtype=torch.float32)
    ends = torch.where(values[..., None] < 0, torch.tensor(NEGATIVE), torch.tensor(POSITIVE))
    return zero + values[..., None].abs() * (ends - zero)
