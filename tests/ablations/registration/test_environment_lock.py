"""The lock names every installed distribution, and no password."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
import torch

from ablations.masking import without_url_passwords
from ablations.registration import environment_lock
from tasks.system import provenance


def test_lock_pins_what_is_installed() -> None:
    found = environment_lock.collect()
    lines = found.lock.splitlines()
    assert f"torch=={importlib.metadata.version('torch')}" in lines
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==\S+", line) for line in pinned)
    names = [line.partition("==")[0] for line in pinned]
    assert names == sorted(set(names))
    header = "\n".join(line for line in lines if line.startswith("#"))
    for fact in ("# Python: ", "# platform: ", "# processor: ", f"# torch: {torch.__version__}", "# revision: "):
        assert fact in header


def test_lock_is_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment_lock.collect()
    environment_lock.collect.cache_clear()
    assert environment_lock.collect() == first


def test_uncommitted_changes_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = {"revision": "a" * 40, "dirty": True}
    facts = {**provenance.collect(), "git": git}
    text = "+" * (environment_lock.LARGEST_DIFF + 5)
    monkeypatch.setattr(environment_lock.provenance, "collect", lambda: facts)
    monkeypatch.setattr(environment_lock, "_uncommitted", lambda _: (text, [f"{n}.py" for n in range(60)]))
    found = environment_lock.collect.__wrapped__()
    assert len(found.changes) == environment_lock.LARGEST_DIFF
    assert f"# revision: {'a' * 40} with uncommitted changes" in found.lock
    assert f"# uncommitted changes: {len(text):,} characters, the first 1,048,576 kept" in found.lock
    assert "49.py and 10 more" in found.lock
    environment_lock.keep(tmp_path, found)
    environment_lock.keep(tmp_path, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["environment.diff", "environment.lock"]


def test_git_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lock, "_PATIENCE", 0)
    changes, _ = environment_lock._uncommitted({"revision": "a", "dirty": True})
    assert changes.startswith("git does not say what they are")


def test_changes_of_code_lose_nothing_but_passwords() -> None:
    text = '+ url = "postgresql://me:s3cret@h/db"\n+ model(cls_token=True, password=password)\n'
    assert without_url_passwords(text) == text.replace("s3cret", "***")
