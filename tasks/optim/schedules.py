"""The learning rate step by step."""

from __future__ import annotations

import math

from tasks.config.training import OptimizerConfig


def span(amount: float, total: int, epochs: float) -> int:
    """Steps that `amount` means: a share of `total` below 1, from 1 on that many of `epochs` epochs."""
    return round(amount * total if amount < 1 else amount * total / epochs)


def rate(step: int, total: int, warmup: int, config: OptimizerConfig, decay: int = 0) -> float:
    """Factor on the peak learning rate at `step` of `total`.

    It rises linearly from 1 / warmup for `warmup` steps. Then it is flat (`constant`), half a cosine down to `min_lr`
    (`cosine`; arXiv 1608.03983, equation 5, without restarts), or flat until the last `decay` steps, which go
    linearly to `min_lr` (`wsd`: warm-up, stable, decay; arXiv 2404.06395 and, for the linear decay, 2405.18392).
    """
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant" or config.lr == 0:
        return 1.0
    floor = min(1.0, config.min_lr / config.lr)
    if config.schedule == "wsd":
        decay = min(decay, total - warmup)
        left = max(0, total - step)
        return 1.0 if left >= decay else floor + (1 - floor) * left / decay
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
