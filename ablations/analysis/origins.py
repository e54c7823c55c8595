"""Where a study's numbers come from, and what in that makes its arms hard to compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ablations.analysis import runs
from ablations.analysis.study import Record, Study
from ablations.layout import COMPLETE


def facts(study: Study) -> dict[str, Any]:
    """Fact -> the values that the runs have, each with the number of runs that have it."""
    by_name: dict[str, dict[str, int]] = {}
    for trial in study.records:
        if trial.provenance is not None:
            for name, value in _of(trial.provenance):
                counts = by_name.setdefault(name, {})
                counts[value] = counts.get(value, 0) + 1
    return {
        name: [{"value": value, "runs": number} for value, number in counts.items()] for name, counts in by_name.items()
    }


def notes(study: Study) -> list[str]:
    """Differences between runs that weaken or forbid the comparison, a line each."""
    ended = [trial for trial in study.records if trial.state == COMPLETE]
    known = [_run(trial) for trial in ended if trial.provenance is not None and "data" in trial.metrics]
    notes = [f"not the same for all runs: {line}" for line in runs.warnings(known)]
    absent = sum(trial.provenance is None for trial in ended)
    if absent:
        notes.append(
            f"{absent} of {len(ended)} complete trials have no provenance.json to be read: what ran there is not known"
        )
    return notes


def _of(provenance: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    hardware, versions, git, data = (_inside(provenance, name) for name in ("hardware", "versions", "git", "data"))
    changed = " with uncommitted changes" if git.get("dirty") else ""
    yield "data", f"{data.get('name')} (fingerprint {str(data.get('fingerprint'))[:12]})"
    yield "revision", f"{git['revision']}{changed}" if git.get("revision") else "not from a checkout"
    yield "processor", f"{hardware.get('cpu')}, {hardware.get('cores')} cores"
    yield "threads", str(hardware.get("threads"))
    yield "GPUs", ", ".join(map(str, hardware.get("gpus") or [])) or "none"
    yield "platform", str(hardware.get("platform"))
    for name in ("backend", "precision", "effective_batch", "world_size"):
        yield name.replace("_", " "), str(provenance.get(name))
    yield "learning rate tuned", "yes" if provenance.get("learning_rate_tuned") else "no"
    for name, version in versions.items():
        yield f"version of {name}", str(version)


def _inside(provenance: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    content = provenance.get(name)
    return content if isinstance(content, Mapping) else {}


def _run(trial: Record) -> runs.EndedRun:
    assert trial.run_dir is not None
    assert trial.provenance is not None
    # The comparison's own warnings; a state of the study stands for the run's status.
    filled = {"git": None, "hardware": None, "effective_batch": None, "precision": None, **trial.provenance}
    filled["versions"] = {"torch": None, **_inside(filled, "versions")}
    filled["data"] = {"fingerprint": None, **_inside(filled, "data")}
    return runs.EndedRun(trial.run_dir, {}, {**trial.metrics, "status": "ok"}, filled)
