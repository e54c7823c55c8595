"""What is kept of compiled code: every form under a name of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import operators

ROOT = Path(operators.__file__).parents[1]
COMPILES = """
import numpy as np
from numba import types
from operators.jit import compile_cached, compile_function
from operators.pde.wave_kernels import _address

def double(values):
    values *= 2

for kind in (types.float32, types.float64):
    compile_cached(double, types.void(kind[::1]))
for radix in (2, 4):
    for kind in ("float32", "float64"):
        _address(radix, kind)
"""


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
