"""These overrides make the smallest run of generation that goes through everything."""

from __future__ import annotations

SMALL = (
    "task=generation",
    "mixer=pool",
    "model.dim=16",
    "model.depth=1",
    "data.batch_size=32",
    "trainer=smoke",
    "trainer.accelerator=cpu",
    "logger=none",
    "sample.n=23",
    "sample.steps=2",
    "sample.batch_size=10",
    "sample.every=1",
    "task.network=null",
    "task.judge=true",
)
