"""Which backend serves attention, which calls are refused and why, and that they all compute the same."""

import importlib
import types

import pytest
import torch

import operators
from operators import InputError
from operators.mixers.attention import attention
from operators.mixers.attention.attention import Attention
from operators.testing.checks import assert_close
from tests.operators.mixers.attention.test_attention import image, make, plain


def test_auto_serves_cpu_tensors_by_sdpa_without_importing_xformers(monkeypatch):
    def refuse(name):
        raise AssertionError(f"{name} was imported for CPU tensors")

    mixer = make()
    monkeypatch.setattr(attention.importlib, "import_module", refuse)
    assert mixer.backend == "sdpa"
    mixer(image(3, 3))
    assert mixer.backend == "sdpa"


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_backend_names_what_was_asked_for(backend):
    assert make(backend=backend).backend == backend


def test_xformers_is_refused_on_cpu_tensors():
    mixer = make(backend="xformers")
    with pytest.raises(InputError, match=r"xformers' cannot serve this call: it serves CUDA tensors only.* on cpu"):
        mixer(image(3, 3))


def test_unknown_backend_is_refused():
    with pytest.raises(InputError, match=r"allowed are auto, xformers, sdpa, reference; did you mean 'sdpa'"):
        operators.create("attention", 64, backend="spda")


def test_availability_covers_the_card_and_gives_reasons():
    availability = Attention.availability()
    assert tuple(availability) == Attention.card.backends
    assert availability["sdpa"] is None
    assert availability["reference"] is None
    if not torch.cuda.is_available():
        assert "no CUDA device" in availability["xformers"]


def trial(monkeypatch, serve):
    """What is learned from an xformers whose attention is `serve`, on this machine's CPU."""
    module = types.SimpleNamespace(memory_efficient_attention=serve)
    monkeypatch.setattr(attention.importlib, "import_module", lambda name: module)
    return attention._xformers_trial.__wrapped__(torch.device("cpu"), torch.float32, 16, False)


def test_missing_xformers_is_a_reason(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(attention.importlib, "import_module", missing)
    reason = attention._xformers_trial.__wrapped__(torch.device("cuda"), torch.float16, 64, False)
    assert reason == "it does not import (No module named 'xformers.ops')"


def test_missing_kernel_is_a_reason_in_one_line(monkeypatch):
    def no_kernel(q, k, v):
        raise NotImplementedError("No operator found\n    `fa2F` is not supported because:\n   too old")

    assert trial(monkeypatch, no_kernel) == "No operator found `fa2F` is not supported because: too old"


@pytest.mark.parametrize("error", [OSError, RuntimeError, AttributeError])
def test_an_xformers_whose_binaries_do_not_fit_is_a_reason_in_one_line(monkeypatch, error):
    def broken(name):
        raise error("libcudart.so.13:\n  cannot open shared object file")

    monkeypatch.setattr(attention.importlib, "import_module", broken)
    reason = attention._xformers_trial.__wrapped__(torch.device("cuda"), torch.float16, 64, False)
    assert reason == "it does not import (libcudart.so.13: cannot open shared object file)"


def test_an_xformers_without_its_backward_kernel_is_refused(monkeypatch):
    class ForwardOnly(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q):
            return q.clone()

        @staticmethod
        def backward(ctx, grad):
            raise NotImplementedError("operator wasn't built\n - see `python -m xformers.info`")

    reason = trial(monkeypatch, lambda q, k, v: ForwardOnly.apply(q))
    assert reason == "operator wasn't built - see `python -m xformers.info`"


def test_trial_asks_for_gradients_even_where_they_are_off(monkeypatch):
    asked = []

    def serve(q, k, v):
        asked.append((q.requires_grad, q.shape[-1], q.is_inference()))
        return (q * k * v).sum()

    with torch.inference_mode():
        assert trial(monkeypatch, serve) is None
    assert asked == [(True, 16, False)]


@pytest.mark.parametrize("requested", ["auto", "xformers"])
def test_where_xformers_serves_it_gets_tokens_before_heads(monkeypatch, requested):
    """A stand-in computes by loops what xformers documents: (B, N, heads, d) in and out."""

    def serve(q, k, v):
        assert q.shape == k.shape == v.shape == (2, 6, 3, 8)
        return torch.stack(
            [torch.stack([plain(q[b, :, h], k[b, :, h], v[b, :, h]) for h in range(3)], 1) for b in (0, 1)]
        )

    expected = make(heads=3, backend="reference")(image(2, 3))
    mixer = make(heads=3, backend=requested)
    monkeypatch.setattr(attention, "xformers_refusal", lambda device, dtype, head_width: None)
    module = types.SimpleNamespace(memory_efficient_attention=serve)
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    assert mixer.backend == "xformers"
    assert_close(mixer(image(2, 3)), expected, 1e-12, "y")


def test_backend_speaks_of_the_type_of_the_last_call(monkeypatch):
    """Under mixed precision the parameters are float32 and the call is not."""

    def only_half(device, dtype, head_width):
        return None if dtype == torch.bfloat16 else "float32 is not served"

    mixer = make(dtype=torch.float32, backend="auto")
    monkeypatch.setattr(attention, "xformers_refusal", only_half)
    monkeypatch.setattr(attention, "attend", lambda q, k, v, backend: v)
    assert mixer.backend == "sdpa"
    with torch.autocast("cpu", torch.bfloat16):
        mixer(image(3, 3, dtype=torch.float32))
    assert mixer.backend == "xformers"


@pytest.mark.parametrize("params", [{}, {"qk_norm": True, "rope": True}], ids=str)
@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_autocast_attends_in_its_type(monkeypatch, backend, params):
    seen = []
    attend = attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda q, k, v, b: (seen.append({q.dtype, k.dtype, v.dtype}), attend(q, k, v, b))[1]
    )
    mixer = make(dtype=torch.float32, backend=backend, **params)
    x = image(5, 7, dtype=torch.float32)
    expected = mixer(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = mixer(x)
    assert seen == [{torch.float32}, {torch.bfloat16}]
    assert got.dtype == torch.float32
    assert_close(got, expected, 0.05, "y")


@pytest.mark.parametrize(("backend", "stores"), [("sdpa", False), ("reference", True)])
def test_only_the_reference_stores_the_map(backend, stores):
    mixer = make(8, backend=backend, heads=1, dtype=torch.float32)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        mixer(image(12, 12, width=8, batch=1, dtype=torch.float32).requires_grad_())
    assert (max(sizes) >= 144**2) == stores


def test_compiles_without_a_graph_break():
    mixer = make(heads=2, rope=True, qk_norm=True, dtype=torch.float32)
    compiled = torch.compile(mixer, fullgraph=True, backend="eager")
    x = image(3, 5, dtype=torch.float32)
    assert_close(compiled(x), mixer(x), 1e-6, "y")


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # importing xformers may warn of its own parts
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 3e-2)], ids=str)
@pytest.mark.parametrize("grid", [(9, 13), (16, 16)], ids=str)
def test_xformers_equals_reference_in_outputs_and_gradients(grid, dtype, tolerance):
    reason = Attention.availability()["xformers"]
    if reason is not None:
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(0)
    batch, tokens, heads, width = 2, grid[0] * grid[1], 3, 64
    q, k, v, weight = (
        torch.randn(batch, tokens, heads, width, generator=generator).to("cuda", dtype) for _ in range(4)
    )
    results = {}
    for backend, kind in (("xformers", dtype), ("reference", torch.float64)):
        leaves = [tensor.to(kind).detach().requires_grad_() for tensor in (q, k, v)]
        y = attention.attend(*leaves, backend)
        (y * weight.to(kind)).sum().backward()
        results[backend] = {"y": y.detach(), **{f"d{n}": leaf.grad for n, leaf in zip("qkv", leaves, strict=True)}}
    for name, expected in results["reference"].items():
        assert_close(results["xformers"][name].double(), expected, tolerance, name)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_takes_xformers_on_cuda_under_autocast():
    reason = Attention.availability()["xformers"]
    if reason is not None:
        pytest.skip(reason)
    x = image(9, 13, width=64, dtype=torch.float32).cuda()
    results = {}
    for backend in ("auto", "reference"):
        torch.manual_seed(0)
        mixer = operators.create("attention", 64, heads=2, backend=backend, shell="published").cuda()
        with torch.no_grad():
            mixer.core.qk.weight *= 10  # scores of order one
        leaf = x.clone().requires_grad_()
        with torch.autocast("cuda", torch.float16):
            y = mixer(leaf)
        (y * x).sum().backward()
        assert mixer.backend == ("xformers" if backend == "auto" else "reference")
        results[backend] = (y.detach(), leaf.grad)
    assert_close(results["auto"][0], results["reference"][0], 1e-2, "y")
    assert_close(results["auto"][1], results["reference"][1], 1e-2, "dx")
