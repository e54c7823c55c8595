"""What is kept of compiled code: every form under a name of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import operators
from operators.cpu import axis_matrices, compilation, gated_norm, kernel

ROOT = Path(operators.__file__).parents[1]
COMPILES = """
from typing import NamedTuple
from operators.cpu.kernel import Flat, kernel
from operators.cpu.transform import _address

class Record(NamedTuple):
    values: Flat

@kernel
def double(k: Record, low: int, high: int) -> None:
    for i in range(low, high):
        k.values[i] *= 2

for kind in ("float32", "float64"):
    double.compiled(kind)
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


def compiler(monkeypatch: pytest.MonkeyPatch, message: str) -> list[bool]:
    """The attempts at compiling where every attempt at caching fails with `message`."""
    attempts: list[bool] = []

    def compile_(signature: object, cache: bool = False, **options: object):
        attempts.append(cache)
        if cache:
            raise RuntimeError(message)
        return lambda function: function

    monkeypatch.setattr(compilation, "cfunc", compile_)
    return attempts


def test_without_a_place_for_a_cache_it_compiles_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = compiler(monkeypatch, "cannot cache function '_entry': no locator available for file 'kernel.py'")
    made = gated_norm.forward.compiled.__wrapped__(gated_norm.forward, "float32")
    assert made.__code__ is kernel._entry.__code__
    assert attempts == [True, False]


def test_other_failures_to_compile_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = compiler(monkeypatch, "LLVM is not well")
    with pytest.raises(RuntimeError, match="not well"):
        gated_norm.forward.compiled.__wrapped__(gated_norm.forward, "float64")
    assert attempts == [True]


def test_a_table_is_what_compiled_code_reads() -> None:
    """Fields in their order, strides in bytes, a float as its bits."""
    assert kernel.layout(gated_norm.NormForward) == (*[("flat", 1)] * 4, ("float", 0), *[("int", 0)] * 2)
    y, weight = torch.zeros(3, 4)[:, :3], torch.zeros(3)
    record = gated_norm.NormForward(y=y, z=y, weight=weight, out=weight, eps=1.0, y_row=4, z_row=5)
    flat = [y.data_ptr(), 11, y.data_ptr(), 11, weight.data_ptr(), 3, weight.data_ptr(), 3]
    assert kernel.table(record, 7, 9).tolist() == [0, 7, 9, *flat, 0x3FF0000000000000, 4, 5]


def test_a_record_has_all_its_fields_and_no_others() -> None:
    with pytest.raises(TypeError, match="y_row"):
        gated_norm.forward("float32", 1, 1, y=torch.zeros(1))
    with pytest.raises(TypeError, match="unexpected"):
        axis_matrices.forward("float32", 1, 1, table=torch.zeros(1))
