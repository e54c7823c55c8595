"""The lock names every installed distribution, and no password."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
import torch

from ablations.masking import without_url_passwords
from ablations.registration import environment_lock


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


def test_changes_of_code_lose_nothing_but_passwords() -> None:
    text = '+ url = "postgresql://me:s3cret@h/db"\n+ model(cls_token=True, password=password)\n'
    assert without_url_passwords(text) == text.replace("s3cret", "***")
