"""Memory that stays with the process; in processes of their own, since allocators remember."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import operators

ROOT = Path(operators.__file__).parents[1]
CODE = """
import contextlib, resource, sys, torch
from operators.benchmark.measuring.memory import freed_memory_kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with freed_memory_kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
    for number in range(30):
        if number == 20:
            before = faults()
        torch.zeros(48 << 18)  # 48 MiB, above any threshold that glibc sets itself
    print(faults() - before)
resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
print(resident >> 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose settings these are")
def test_memory_is_found_again_and_given_back_at_the_end() -> None:
    found = {}
    for case in ("kept", "not"):
        done = subprocess.run(
            [sys.executable, "-c", CODE, case],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        found[case] = [int(word) for word in done.stdout.split()]
    pages = 10 * (48 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert found["kept"][0] < 0.01 * pages
    assert found["not"][0] > 10 * max(found["kept"][0], 10)  # not all pages: where they are huge, they are fewer
    assert found["kept"][1] < found["not"][1] + 24
