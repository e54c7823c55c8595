"""The scan in a process of its own: without a cache, after a fork, and what it costs in memory and time."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import operators
from operators import BARE
from operators.scan import selective_scan

ROOT = Path(__file__).parents[3]


def python(code, *arguments, root=ROOT, timeout=240, **environment):
    """What `code` prints, run with the package under `root`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "2", **environment}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FIRST_CALL = """
import sys, time, torch
from operators.cpu import selective_scan as kernels
from operators.scan import selective_scan
u = torch.ones(1, 1, 3, requires_grad=True)
one = torch.ones(1, 1, 3)
start = time.process_time()
y = selective_scan(u, one, torch.zeros(1, 1), one, one)
y.sum().backward()
seconds = time.process_time() - start
assert y.tolist() == [[[1.0, 2.0, 3.0]]] and u.grad.tolist() == [[[3.0, 2.0, 1.0]]]
print(kernels.__file__, seconds)
"""


@pytest.mark.slow
def test_where_nothing_can_be_cached_it_compiles_in_memory_and_soon(tmp_path):
    """Files stand where both cache folders, beside the code and at home, would have to be made."""
    shutil.copytree(ROOT / "operators", tmp_path / "operators", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "operators/cpu/__pycache__").touch()
    home = tmp_path / "home"
    home.touch()
    settings = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "NUMBA_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"}
    file, seconds = python(FIRST_CALL, root=tmp_path, **settings).split()
    assert Path(file) == tmp_path / "operators/cpu/selective_scan.py"
    assert not list(tmp_path.rglob("*.nb?"))
    assert float(seconds) < 60  # about 5 s on an idle machine


@pytest.mark.slow
def test_the_first_call_compiles_within_20_seconds_and_leaves_a_cache(tmp_path):
    # In processor time: other work on the machine does not count.
    first = float(python(FIRST_CALL, NUMBA_CACHE_DIR=str(tmp_path)).split()[-1])
    assert list(tmp_path.rglob("*.nbc"))
    second = float(python(FIRST_CALL, NUMBA_CACHE_DIR=str(tmp_path)).split()[-1])
    assert first < 20
    assert second < first / 2


FORK = """
import torch
from torch.utils.data import DataLoader, Dataset
from operators.scan import selective_scan

def scan():
    generator = torch.Generator().manual_seed(0)
    u, dt, b, c = (torch.rand(2, 64, 600, generator=generator).requires_grad_() for _ in range(4))
    a = -torch.rand(64, 16, generator=generator)
    y = selective_scan(u, dt, a, b[:, :16], c[:, :16])
    return torch.stack([y, *torch.autograd.grad(y.square().sum(), [u, dt, b, c])]).detach()

class Scans(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        torch.get_num_threads = lambda: 1 + index  # for the scan only: OpenMP's threads do not survive a fork
        return scan()

torch.set_num_threads(2)
before = scan()
loader = DataLoader(Scans(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
assert all(torch.equal(found, before) for found in loader)
assert torch.equal(scan(), before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems start workers anew")
def test_forked_workers_scan_after_their_parent_did():
    python(FORK)


MEMORY = """
import sys, torch
from operators.scan import selective_scan
batch, channels, size = 2, 96, 64

def peak():  # of this program alone: what `getrusage` says is at least what its parent took
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

def scan(length):
    u, dt = (torch.rand(batch, channels, length).requires_grad_() for _ in range(2))
    b, c = (torch.rand(batch, size, length).requires_grad_() for _ in range(2))
    a = (-torch.rand(channels, size)).requires_grad_()
    selective_scan(u, dt, a, b, c, backend=sys.argv[1]).sum().backward()
    return peak()

before = scan(64)
print((scan(4096) - before) / (4 * batch * channels * size * 4096))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /proc")
@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_memory_stays_far_below_that_of_all_states(backend):
    assert float(python(MEMORY, backend)) < 0.6


def timed_scan():
    """A scan of 4 images, 192 channels, 16 states and 1,024 steps: forward, and with gradients."""
    batch, channels, size, length = 4, 192, 16, 1024
    u, grad = torch.randn(2, batch, channels, length)
    dt = 0.001 + 0.1 * torch.rand(batch, channels, length)
    b, c = torch.randn(2, batch, size, length)
    a = -torch.arange(1.0, size + 1).repeat(channels, 1)
    given = [tensor.requires_grad_() for tensor in (u, dt, a, b, c)]
    return lambda: selective_scan(*given), lambda: torch.autograd.grad(selective_scan(*given), given, grad)


def timed_cross_scan():
    """The same four times over in all, by `ss2d` on 32 × 32 tokens: its maps and its ways through the grid included."""
    mixer = operators.create("ss2d", 192, grid=(32, 32), shell=BARE)
    x, grad = torch.randn(2, 4, 32, 32, 192)
    given = [x.requires_grad_(), *mixer.core.parameters()]
    return lambda: mixer(x), lambda: torch.autograd.grad(mixer(x), given, grad)


@pytest.mark.slow
@pytest.mark.parametrize(("scans", "directions"), [(timed_scan, 1), (timed_cross_scan, 4)], ids=["scan", "ss2d"])
def test_it_takes_no_longer_than_the_exponentials_alone(scans, directions):
    """Forward within the time of torch.exp over B·L·D·S elements a direction, with gradients within 3.5 times that."""
    everything = torch.randn(4 * 1024 * 192 * 16)
    once, both = scans()

    def forward():
        with torch.no_grad():
            once()

    def exponentials():
        torch.exp(everything)

    def measure():
        seconds = {call: [] for call in (exponentials, forward, both)}
        for _ in range(7):
            for call, taken in seconds.items():
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
        unit, *others = (statistics.median(taken) for taken in seconds.values())
        return [other / unit / directions for other in others]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both()  # compiles
        best = [min(ratios) for ratios in zip(*(measure() for _ in range(3)), strict=True)]
    finally:
        torch.set_num_threads(before)
    assert best[0] <= 1.0, f"forward takes {best[0]:.2f} of the exponentials' time"
    assert best[1] <= 3.5, f"forward and backward take {best[1]:.2f} times the exponentials' time"
