"""`environment.lock`: exact versions of everything installed, and what it runs on, as a requirements file of pip."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ablations.masking import without_url_passwords
from tasks.system import provenance, results
from tasks.system.atomic_files import write_text

STEM = "environment"
LOCK = f"{STEM}.lock"
"""The first environment's; uncommitted changes of the code lie beside it, with the ending `.diff`."""
LARGEST_DIFF = 2**20
"""Characters of the uncommitted changes that are kept; the lock says how many there are."""
MOST_UNTRACKED = 50
"""Untracked files of the checkout that the lock names."""
SHORT = 12
"""Digits of a digest in the name of a file."""
_PATIENCE = 20
"""Seconds that git has to answer in."""


@dataclass(frozen=True)
class Environment:
    """The `lock` of an environment, the uncommitted `changes` of its checkout (empty: none), and its git `revision`."""

    lock: str
    changes: str
    revision: Mapping[str, Any] | None

    @property
    def digest(self) -> str:
        """Names the environment in the plan, and the file of its lock."""
        return digest(self.lock)


@cache
def collect() -> Environment:
    """The environment of this process; it is the same text for the same environment, whenever it is asked."""
    facts = provenance.collect()
    changes, untracked = _uncommitted(facts["git"])
    lines = [f"# {name}: {value}" for name, value in _facts(facts, changes, untracked)]
    return Environment("\n".join([*lines, *_packages()]) + "\n", changes[:LARGEST_DIFF], facts["git"])


def digest(lock: str) -> str:
    """The first digits of a lock's SHA-256."""
    return sha256(lock.encode()).hexdigest()[:SHORT]


def files(directory: Path) -> dict[str, Path]:
    """Digest -> lock of each environment that a study's directory has, the first environment's first."""
    others = sorted(directory.glob(f"{STEM}-*.lock"))
    return {digest(results.read(path) or ""): path for path in (directory / LOCK, *others) if path.is_file()}


def keep(directory: Path, environment: Environment) -> None:
    """Write the lock into a study's directory, beside those of other environments."""
    if environment.digest in files(directory):
        return
    path = directory / LOCK
    if path.exists():
        path = directory / f"{STEM}-{environment.digest}.lock"
    if environment.changes:
        write_text(path.with_suffix(".diff"), environment.changes)
    write_text(path, environment.lock)


def _facts(facts: dict[str, Any], changes: str, untracked: list[str]) -> Iterator[tuple[str, str]]:
    hardware, git = facts["hardware"], facts["git"]
    yield "Python", f"{facts['versions']['python']} ({platform.python_implementation()})"
    yield "platform", hardware["platform"]
    yield "processor", f"{hardware['cpu']}, {hardware['cores']} cores"
    yield "GPUs", ", ".join(hardware["gpus"]) or "none"
    import torch

    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    capability = torch.backends.cpu.get_cpu_capability()
    yield "torch", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}, processor capability {capability}"
    build = [line.strip(" -") for line in torch.__config__.show().splitlines() if "Build settings" not in line]
    yield "torch's build", "; ".join([f"revision {torch.version.git_version}", *build[1:]])
    if git is None:
        yield "revision", "not from a checkout"
        return
    yield "revision", f"{git['revision']}{' with uncommitted changes' if git['dirty'] else ''}"
    if changes:
        kept = "all kept" if len(changes) <= LARGEST_DIFF else f"the first {LARGEST_DIFF:,} kept"
        yield (
            "uncommitted changes",
            f"{len(changes):,} characters, {kept}, SHA-256 {sha256(changes.encode()).hexdigest()}",
        )
    if untracked:
        more = f" and {len(untracked) - MOST_UNTRACKED} more" if len(untracked) > MOST_UNTRACKED else ""
        yield "untracked files", f"{', '.join(untracked[:MOST_UNTRACKED])}{more}"


def _packages() -> Iterator[str]:
    """A requirement for each installed distribution; those that no index has, such as a checkout, as comments."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if not name or name in versions:  # the first on the path is the one that is imported
            continue
        requirement = f"{name}=={distribution.version}"
        direct = distribution.read_text("direct_url.json")
        if direct is not None:
            url = without_url_passwords(str(json.loads(direct).get("url")))
            requirement = f"# {requirement} is installed from {url}"
        versions[name] = requirement
    yield from (versions[name] for name in sorted(versions))


def _uncommitted(git: dict[str, Any] | None) -> tuple[str, list[str]]:
    """How the checkout differs from its revision, without passwords of URLs, and the files that git does not know."""
    if git is None or not git["dirty"]:
        return "", []
    try:
        folder = _git(Path(__file__).resolve().parent, "rev-parse", "--show-toplevel").strip()
        names = [line[3:] for line in _git(folder, "status", "--porcelain").splitlines() if line.startswith("?? ")]
        changes = _git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff")
    except (OSError, subprocess.SubprocessError) as error:
        return f"git does not say what they are: {error}\n", []
    return without_url_passwords(changes), names


def _git(folder: str | Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
    return done.stdout.decode(errors="replace")
