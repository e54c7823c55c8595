import sys
import types

import pytest
import torch

from operators import InputError
from operators.benchmark import options
from operators.benchmark.rivals import RIVALS, rival_arms
from operators.benchmark.workload import BOTH, DTYPES, FORWARD, Shape, Target, functions
from operators.scan import cuda, selective_scan
from operators.testing.checks import assert_close
from tests.operators.benchmark.cases import CPU

SHAPE = Shape(batch=2, height=3, width=4, dim=8)
BY_NAME = {rival.name: rival for rival in RIVALS}


def module(monkeypatch, name, **members):
    """A package of that name that is there for the length of a test."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        made = types.ModuleType(".".join(parts[:depth]))
        made.__path__ = []
        monkeypatch.setitem(sys.modules, made.__name__, made)
    vars(made).update(members)


def test_the_command_line_knows_their_names():
    assert tuple(BY_NAME) == options.RIVALS
    assert tuple(DTYPES) == options.DTYPES


def test_choice():
    assert rival_arms("auto") == list(RIVALS)
    assert rival_arms("none") == []
    assert [rival.label for rival in rival_arms("timm,sdpa,timm")] == ["rival timm", "rival sdpa"]
    with pytest.raises(InputError, match="did you mean 'sdpa'"):
        rival_arms("spda")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("timm", "timm.layers"),
        ("mamba_ssm_ref", "mamba_ssm.ops.selective_scan_interface"),
        ("spectral_conv", "neuralop.layers.spectral_convolution"),
    ],
)
def test_a_package_that_is_not_there_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package.partition(".")[0], None)
    for loaded in [entry for entry in sys.modules if entry.startswith(package.partition(".")[0] + ".")]:
        monkeypatch.delitem(sys.modules, loaded)
    assert f"{package} does not import" in BY_NAME[name].absent(SHAPE, CPU)


def test_mamba_ssm_without_its_kernel_says_how_to_build_it(monkeypatch):
    monkeypatch.setattr(cuda, "_installed", lambda module: module == "mamba_ssm")
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE" in BY_NAME["mamba_ssm_ref"].absent(SHAPE, CPU)


@pytest.mark.parametrize("name", ["xformers", "mamba_ssm"])
def test_cuda_kernels_are_refused_on_cpu(name):
    assert "CUDA tensors only" in BY_NAME[name].absent(SHAPE, CPU)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sdpa_is_attention_alone(dtype):
    place = Target("cpu", dtype)
    assert BY_NAME["sdpa"].absent(SHAPE, place) is None
    workload = BY_NAME["sdpa"].build(SHAPE, place)
    q, k, v = workload.inputs
    assert q.shape == (2, 1, 12, 8)
    assert str(q.dtype) == f"torch.{dtype}"
    works = functions(workload, place)
    expected = (q.double() @ k.double().mT / 8**0.5).softmax(-1) @ v.double()
    assert_close(works[FORWARD]().double(), expected.detach(), 1e-2, "output")
    works[BOTH]()
    assert all(tensor.grad.abs().sum() > 0 for tensor in workload.inputs)
    assert workload.macs == 2 * 2 * 12**2 * 8


class Attention(torch.nn.Module):
    """Stands in for timm's, by its signature."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.heads, self.qkv = num_heads, torch.nn.Linear(dim, dim)

    def forward(self, x):
        return self.qkv(x)


class SpectralConv(torch.nn.Module):
    """Stands in for neuraloperator's, by its signature."""

    def __init__(self, in_channels, out_channels, n_modes):
        super().__init__()
        self.n_modes = n_modes
        self.weight = torch.nn.Parameter(torch.ones(in_channels, out_channels, *n_modes))

    def forward(self, x):
        return x * self.weight.mean()


def test_adapters_hand_over_shapes_and_parameters(monkeypatch):
    module(monkeypatch, "timm.layers", Attention=Attention)
    module(monkeypatch, "neuralop.layers.spectral_convolution", SpectralConv=SpectralConv)
    for name, shape, parameters in (("timm", (2, 12, 8), 2), ("spectral_conv", (2, 8, 3, 4), 1)):
        assert BY_NAME[name].absent(SHAPE, CPU) is None
        workload = BY_NAME[name].build(SHAPE, CPU)
        assert workload.inputs[0].shape == shape
        assert functions(workload, CPU)[BOTH]().shape == shape
        assert [parameter.grad is not None for parameter in workload.parameters] == [True] * parameters


def test_the_scan_gets_what_its_signature_asks_for(monkeypatch):
    module(monkeypatch, "mamba_ssm.ops.selective_scan_interface", selective_scan_ref=selective_scan)
    workload = BY_NAME["mamba_ssm_ref"].build(SHAPE, CPU)
    assert functions(workload, CPU)[BOTH]().shape == (2, 8, 12)
    assert workload.macs == 9 * 2 * 12 * 8 * 16 / 2
    assert bool((workload.parameters[0] < 0).all())
