"""What is kept of compiled code: every form under a name of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import operators

ROOT = Path(operators.__file__).parents[1]
COMPILES = """
import numpy as np
from numba import types
from operators.cpu.compilation import compile_cached, compile_function
from operators.cpu.transform import _address

def double(values):
    values *= 2

for kind in (types.float32, types.float64):
    compile_cached(double, types.void(kind[::1]))
for radix in (2, 4):
    for kind in ("float32", "float64"):
        _address(radix, kind)
"""


TRANSFORMS = """
import sys
import numpy as np
from numba import njit
from operators.cpu import transform as module

@njit
def transform(target, source, plan, scratch):
    module.transform(target, 0, module.PAIRS, source, 0, module.PAIRS, plan, scratch)

for length in map(int, sys.argv[1:]):
    value = np.random.default_rng(0).standard_normal((length, 2, 16))
    target, scratch = np.empty(length * 32), np.empty((2, length * 32))
    transform(target, value.ravel(), module.table(length, "float64"), scratch)
    found = target.reshape(length, 2, 16)
    expected = np.fft.fft(value[:, 0] + 1j * value[:, 1], axis=0)
    assert abs(found[:, 0] + 1j * found[:, 1] - expected).max() < 1e-12, length
"""


@pytest.mark.slow
def test_code_of_several_processes_is_not_mistaken(tmp_path: Path) -> None:
    script = tmp_path / "transforms.py"
    script.write_text(TRANSFORMS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for lengths in (["8"], ["7"], ["3"], ["8", "7", "3", "168"]):
        done = subprocess.run([sys.executable, script, *lengths], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_forms_of_a_function_share_no_index(tmp_path: Path) -> None:
    """Numba's index of forms is not safe against two processes that add to it: one got the other's code."""
    script = tmp_path / "compiles.py"
    script.write_text(COMPILES)
    cache = tmp_path / "cache"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}
    for _ in range(2):
        done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        indexes = {path.stem for path in cache.rglob("*.nbi")}
        codes = [path.stem for path in cache.rglob("*.nbc")]
        assert len(indexes) == 6
        assert sorted(codes) == sorted(f"{index}.1" for index in indexes), "found again, none added"
