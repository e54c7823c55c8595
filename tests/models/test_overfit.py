"""Whatever learns from images at all can learn sixty-four of them by heart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import models
import operators
from models import MixerSpec

FIXED = ("identity", "pool", "random")
CASES = [
    (name, shell)
    for name in operators.names()
    if name not in FIXED
    for shell in ("common", *operators.describe(name).shells)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shell"), CASES)
def test_overfits(name: str, shell: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(64, 1, 28, 28, generator=generator), torch.randint(10, (64,), generator=generator)
    model = models.create(
        "vit_nano", mixers=MixerSpec(name, shell=shell), image_size=(28, 28), in_channels=1, num_classes=10
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0)
    for _ in range(200):
        logits = model(images)
        if bool((logits.argmax(1) == labels).all()):
            return
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    pytest.fail(f"{(logits.argmax(1) == labels).float().mean():.1%} of 64 images after 200 steps")
