"""Without numba torch's operations serve everything, and what serves is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import operators
from operators import InputError
from operators.cpu import availability
from operators.cpu.op import CpuOp
from operators.pde import filter_op
from operators.pde.filter_op import filtered
from operators.pde.separable_op import OP, separable
from operators.scan import selective_scan

ROOT = Path(operators.__file__).parents[1]
ABSENT = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
"""
"""As if neither were installed: a module of this name is read when Python starts."""

LISTING = """
from operators import __main__ as zoo
assert zoo.main([]) == 0
"""

EVERY_MIXER = """
import json, torch, operators
from operators.scan import availability
served = {}
for name in operators.names():
    mixer = operators.create(name, 16, grid=(4, 6), cond_dim=16)
    x = torch.randn(2, 4, 6, 16, requires_grad=True)
    arguments = {"cond": torch.randn(2, 16)} if mixer.core.needs_cond else {}
    y = mixer(x, **arguments)
    gradients = torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()], allow_unused=True)
    assert y.isfinite().all() and all(g.isfinite().all() for g in gradients if g is not None), name
    with torch.no_grad():
        assert torch.allclose(mixer(x, **arguments), y, atol=1e-5), name
    served[name] = mixer.backend
print(json.dumps([served, availability()["cpu"]]))
"""
REASON = "needs numba, which is not installed"


Python = Callable[..., str]


@pytest.fixture(scope="module")
def without_numba(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """A function that runs Python where `import numba` fails, and returns what it prints."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(ABSENT)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "COLUMNS": "200"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        run("-c", "import numba")
    return run


def test_every_mixer_runs_both_ways_and_what_is_missing_is_said(without_numba: Python) -> None:
    listing, _, facts = without_numba("-c", f"{LISTING}{EVERY_MIXER}").strip().rpartition("\n")
    printed = " ".join(listing.split())
    assert f"mamba backend cpu: it {REASON}" in printed
    assert f"pde_ssm backend compiled: {REASON}" in printed
    served, reason = json.loads(facts)
    assert served["pde_ssm"] in ("separable", "fft")
    assert served["mamba"] == served["ss2d"] == "chunked"
    assert not {"compiled", "compiled_fft", "cpu"} & set(served.values())
    assert reason == f"it {REASON}"


@pytest.mark.slow
def test_the_benchmark_and_the_contract_run(without_numba: Python) -> None:
    options = [
        "--mixers",
        "pde_ssm",
        "mamba",
        "--grids",
        "4",
        "--dim",
        "16",
        "--batch",
        "1",
        "--repeats",
        "2",
        "--out",
        "out",
    ]
    table = without_numba("-m", "operators.benchmark", *options)
    assert "chunked" in table
    for name in ("pde_ssm", "mamba"):
        without_numba("-m", "operators", "test", name)


def test_compiled_operators_and_backends_refuse_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_REFUSAL", REASON)
    for op in (OP, filter_op.OP):
        monkeypatch.setattr(op, "_modules", {})  # earlier tests may have loaded compiled code
    u = torch.zeros(1, 2, 2, 16)
    with pytest.raises(
        InputError, match=f"^the compiled propagator {REASON}: set pde.method to auto, separable or fft$"
    ):
        separable(u, *torch.zeros(2, 1, 2, 2, 16), torch.zeros(16))
    with pytest.raises(
        InputError, match=f"^the compiled filter {REASON}: set the backend \\(pde.method of pde_ssm\\) to auto or fft$"
    ):
        filtered(u, torch.zeros(2, 2, 2, 16), "periodic", "periodic")
    sequence = torch.zeros(1, 2, 3)
    with pytest.raises(InputError, match=f"backend='cpu' cannot serve this scan: it {REASON}; use auto, chunked or"):
        selective_scan(sequence, sequence, torch.zeros(2, 1), sequence[:, :1], sequence[:, :1], backend="cpu")


def test_a_numba_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("Numba needs NumPy 2.3 or less.\nGot 3.0")

    monkeypatch.setattr("operators.cpu.op.import_module", broken)
    monkeypatch.setattr(OP, "_modules", {})
    with pytest.raises(InputError, match=r"does not import \(Numba needs NumPy 2.3 or less. Got 3.0\): set pde.method"):
        OP.load("separable")
    assert isinstance(OP, CpuOp)


@pytest.mark.parametrize(("value", "reason"), [("1", "NUMBA_DISABLE_JIT turns off"), ("0", None)])
def test_compilation_that_is_turned_off_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str | None
) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    found = availability._reason()
    assert found is None if reason is None else reason in found
