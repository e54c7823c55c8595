"""How long OpenMP's threads wait for work by turning in a loop; to be set before torch is first imported.

By default they turn for so long that two processes on one machine keep the processors from each other: on two cores a
run beside another took five times as long as alone (`docs/results/startup.md`).
"""

from __future__ import annotations

import os

LIMITS = {
    "GOMP_SPINCOUNT": "1000",  # GNU's runtime, in torch for Linux: turns, some microseconds
    "KMP_BLOCKTIME": "0",  # LLVM's and Intel's runtimes, in torch for macOS and Windows: milliseconds
}
POLICY = "OMP_WAIT_POLICY"
"""Decides it for every runtime, where the user has set it."""


def limit_spinning() -> None:
    """Let idle threads sleep soon, in this process and those it starts, unless the user has said how they wait."""
    if POLICY not in os.environ:
        for name, value in LIMITS.items():
            os.environ.setdefault(name, value)
