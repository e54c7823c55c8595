"""The kernels of flash-linear-attention behind a stand-in: conversions, what is refused and why, and the trial."""

import importlib
import importlib.util
import inspect
import re
import sys

import pytest
import torch

from operators import InputError
from operators.linear import choice, decayed, fla
from operators.linear.fla import Problem
from operators.testing.cases import noise
from operators.testing.checks import assert_close, relative_error
from tests.operators.linear import stand_in

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HALF, BF16, FLOAT = torch.float16, torch.bfloat16, torch.float32
PROBLEMS = [
    Problem("decayed", "head", 3, 4, 2),
    Problem("decayed", "channel", 2, 4, 3),
    Problem("delta", "none", 2, 4, 3),
    Problem("delta", "head", 3, 4, 2),
    Problem("delta", "channel", 1, 4, 3),
    Problem("delta", "head", 2, 4, 3, writes=2),
    Problem("delta", "none", 2, 4, 3, writes=3),
    Problem("log_linear", "head", 2, 64, 2, levels=8),
]
SSD, GLA, DELTANET, *_, LEVELS = PROBLEMS
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def fresh():
    """Nothing that a test learns of the package outlives it."""
    yield
    fla.missing.cache_clear()
    fla._trial.cache_clear()


def trial(monkeypatch, problem, dtype=HALF, **instead):
    stand_in.install(monkeypatch, **instead)
    monkeypatch.setattr(fla, "TRIAL_TOKENS", 11)  # stand-ins have no chunks
    return fla._trial.__wrapped__(problem, CPU, dtype)


# ---------------------------------------------------------------- conversions


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_every_recurrence_is_handed_over_as_its_kernel_takes_it(monkeypatch, problem):
    """Outputs and gradients of all arguments are those of the plain recurrence, up to rounding; see `_trial`."""
    monkeypatch.setattr(fla, "TOLERANCE", 2e-3)
    assert trial(monkeypatch, problem) is None
    monkeypatch.setattr(fla, "TOLERANCE", 1e-6)
    if not fla.kernel(problem).half_only:
        assert trial(monkeypatch, problem, FLOAT) is None


@pytest.mark.parametrize("problem", [DELTANET, PROBLEMS[-2]], ids=str)
def test_stand_ins_refuse_float32_as_the_kernels_do(monkeypatch, problem):
    assert trial(monkeypatch, problem, FLOAT).startswith("TypeError: q, k, v are torch.float32")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_decayed_recurrences_in_both_directions(monkeypatch, reverse, per_channel):
    stand_in.install(monkeypatch)
    monkeypatch.setattr(fla, "refusal", lambda problem, device, dtype: None)
    q, k = (noise(2, 7, 4 if per_channel else 2, 3, seed=seed).requires_grad_() for seed in (1, 2))
    v = noise(2, 7, 4, 2, seed=3).requires_grad_()
    log_decay = -noise(2, 7, 4, *([3] if per_channel else []), seed=4).abs()
    given = (q, k, v, log_decay.requires_grad_())
    y, expected = (decayed.decayed(*given, reverse=reverse, backend=name) for name in ("fla", "reference"))
    assert_close(y, expected, 1e-6, "y")
    weights = noise(*y.shape, seed=5)
    pairs = (torch.autograd.grad(result, given, weights) for result in (y, expected))
    for name, gradient, right in zip(("q", "k", "v", "log_decay"), *pairs, strict=True):
        assert_close(gradient, right, 1e-5, name)


def test_a_second_derivative_is_refused(monkeypatch):
    stand_in.install(monkeypatch)
    given = [noise(1, 5, 1, 2, seed=seed).requires_grad_() for seed in (1, 2, 3)]
    y = fla.run(Problem("decayed", "head", 1, 2, 2), FLOAT, *given, log_decay=torch.zeros(1, 5, 1))
    with pytest.raises(InputError, match="no second derivatives; use the backend chunked or reference"):
        torch.autograd.grad(y.sum(), given, create_graph=True)
    torch.autograd.grad(y.sum(), given, retain_graph=True)


@pytest.mark.skipif(importlib.util.find_spec("fla") is None, reason="fla-core is not installed")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("module", stand_in.FUNCTIONS)
def test_stand_ins_have_the_parameters_of_the_kernels(module):
    ours = stand_in.FUNCTIONS[module]
    real = inspect.signature(getattr(importlib.import_module(f"fla.ops.{module}"), ours.__name__)).parameters
    given = inspect.signature(ours).parameters
    named = [p for p in real.values() if p.kind is not p.VAR_KEYWORD]
    assert [(p.name, p.default) for p in given.values()] == [(p.name, p.default) for p in named]


# ---------------------------------------------------------------- what serves


def cuda_serves(monkeypatch, trial=None):
    monkeypatch.setattr(fla, "missing", lambda: None)
    monkeypatch.setattr(fla, "_trial", lambda problem, device, dtype: trial)


def test_on_cuda_auto_takes_the_kernels_where_they_serve(monkeypatch):
    cuda_serves(monkeypatch)
    for problem in PROBLEMS:
        for dtype in (HALF, BF16):
            assert choice.serving("auto", problem, CUDA, dtype) == "fla"
            assert choice.serving("chunked", problem, CUDA, dtype) == "chunked"
        for dtype in (FLOAT, torch.float64):
            assert choice.serving("auto", problem, CUDA, dtype) == "chunked"
    cuda_serves(monkeypatch, "no kernel image")
    assert choice.serving("auto", SSD, CUDA, BF16) == "chunked"
    assert choice.serving("reference", SSD, CUDA, BF16) == "reference"


def test_float32_is_served_where_torch_may_round_to_tf32(monkeypatch):
    cuda_serves(monkeypatch)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert choice.serving("auto", SSD, CUDA, FLOAT) == "fla"
    assert choice.serving("auto", DELTANET, CUDA, FLOAT) == "chunked"


@pytest.mark.parametrize(
    ("problem", "device", "dtype", "reason"),
    [
        (SSD, CPU, BF16, "it serves CUDA tensors only, and these are on cpu"),
        (SSD, CUDA, torch.float64, "it has no float64"),
        (GLA, CUDA, FLOAT, r"it rounds products of float32 to TF32: train with precision bf16-mixed .*\('high'\)"),
        (DELTANET, CUDA, FLOAT, "its chunk_delta_rule has no float32: train with precision bf16-mixed or 16-mixed"),
        (PROBLEMS[5], CUDA, FLOAT, "its chunk_gated_delta_product has no float32"),
        (DELTANET._replace(key=257), CUDA, BF16, "it takes at most 256 key channels per head, not 257"),
        (
            LEVELS._replace(key=48),
            CUDA,
            BF16,
            "it takes key channels divisible by 64 and a power of two .*, not 48 and 2",
        ),
        (LEVELS._replace(value=48), CUDA, BF16, "it takes key channels .* a power of two .*, not 64 and 48"),
        (SSD, CUDA, BF16, "no kernel image"),
    ],
)
def test_what_the_kernels_cannot_serve_is_refused_in_one_line(monkeypatch, problem, device, dtype, reason):
    cuda_serves(monkeypatch, "no kernel image")
    with pytest.raises(InputError, match=f"^backend='fla' cannot serve this call: {reason}.*; use auto, ch") as refused:
        choice.serving("fla", problem, device, dtype)
    assert "\n" not in str(refused.value)


def test_where_torch_must_be_deterministic_kernels_are_refused(monkeypatch):
    cuda_serves(monkeypatch)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choice.serving("auto", SSD, CUDA, BF16) == "chunked"
    with pytest.raises(InputError, match="two runs round differently"):
        choice.serving("fla", SSD, CUDA, BF16)


def test_transforms_are_served_by_torch(monkeypatch):
    cuda_serves(monkeypatch)
    served = []

    def function(x):
        served.append(choice.serving("auto", SSD, CUDA, BF16))
        with pytest.raises(InputError, match=r"it has no forward-mode derivatives, and serves no transform of torch\."):
            choice.serving("fla", SSD, CUDA, BF16)
        return x.sum()

    torch.func.grad(function)(torch.ones(2))
    torch.func.vmap(function)(torch.ones(2, 2))
    assert served == ["chunked", "chunked"]


def test_unknown_backend_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"allowed are auto, fla, chunked, reference; did you mean 'fla'\?"):
        choice.serving("flat", SSD, CPU, FLOAT)


def test_availability(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = "it serves CUDA tensors only, and there is no CUDA device"
    assert choice.availability() == {"fla": reason, "chunked": None, "reference": None}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    stand_in.install(monkeypatch)
    assert choice.availability()["fla"] is None


def test_a_missing_package_is_a_reason_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert fla.refusal(SSD, CUDA, BF16) == "it is not installed: pip install 'operator-zoo[fla]'"


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError, AttributeError])
def test_a_package_that_does_not_import_is_a_reason_in_one_line(monkeypatch, error):
    def broken(name):
        raise error("no module named\n triton")

    stand_in.install(monkeypatch)
    monkeypatch.setattr(importlib, "import_module", broken)
    assert fla.refusal(SSD, CUDA, BF16) == "it does not import (no module named triton)"


def test_for_cpu_tensors_nothing_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "fla", None)
    assert choice.serving("auto", SSD, CPU, BF16) == "chunked"
    assert "on cpu" in fla.refusal(SSD, CPU, BF16)


@pytest.mark.slow
def test_compiled_code_may_ask():
    def ask(x):
        return x + len(fla.refusal(Problem("decayed", "head", 2, 4, x.shape[1]), x.device, x.dtype))

    compiled = torch.compile(ask, backend="eager", fullgraph=True)
    x = torch.ones(2, 3)
    assert torch.equal(compiled(x), ask(x))


# ---------------------------------------------------------------- the trial


def through(change):
    """`chunk_simple_gla`, whose arguments or outputs are changed."""

    def function(q, k, v, g, scale):
        return change(stand_in.chunk_simple_gla, q, k, v, g, scale)

    function.__name__ = "chunk_simple_gla"
    return function


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


@pytest.mark.parametrize(
    ("change", "off"),
    [
        (lambda f, q, k, v, g, scale: f(q, k, v, g, scale=q.shape[-1] ** -0.5), "outputs are off .* by 0.5"),
        (lambda f, q, k, v, g, scale: f(q, k, v, g.flip(2), scale=scale), "outputs are off"),
        (
            lambda f, q, k, v, g, scale: (f(q, k, v, g, scale=scale)[0] * float("nan"), None),
            "outputs are off .* by nan",
        ),
        (
            lambda f, q, k, v, g, scale: f(q, Wrong.apply(k, 1.1), v, g, scale=scale),
            "gradients of k are off .* by 0.1 ",
        ),
        (lambda f, q, k, v, g, scale: f(q, k, v, Wrong.apply(g, -1), scale=scale), "gradients of log_decay are off"),
        (lambda f, q, k, v, g, scale: f(q, k, v, g.half(), scale=scale), "TypeError: g is torch.float16 of shape"),
    ],
)
def test_a_kernel_that_computes_something_else_is_refused(monkeypatch, change, off):
    reason = trial(monkeypatch, SSD, simple_gla=through(change))
    assert reason is not None
    assert "\n" not in reason
    assert re.search(off, reason), reason


def test_the_trial_runs_whatever_the_context_of_the_call(monkeypatch):
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.device("meta"):
        assert trial(monkeypatch, SSD) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_a_full_memory_is_no_reason(monkeypatch):
    def full(f, *given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        trial(monkeypatch, SSD, simple_gla=through(full))


# ---------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # importing fla may warn of its own parts
@gpu
@pytest.mark.parametrize("dtype", [HALF, BF16], ids=str)
@pytest.mark.parametrize("problem", [p._replace(key=64, value=64, levels=p.levels and 9) for p in PROBLEMS], ids=str)
def test_the_kernels_equal_the_plain_recurrences(problem, dtype):
    """The trial compares outputs and gradients; here on more tokens, several of their chunks."""
    reason = choice.availability()["fla"]
    if reason is not None:
        pytest.skip(reason)
    assert fla.refusal(problem, CUDA, dtype) is None
    given, gradient = fla._example(problem, dtype)
    longer = {name: torch.cat([tensor] * 3, 1) for name, tensor in given.items()}
    moved = {name: tensor.cuda().requires_grad_() for name, tensor in longer.items()}
    plain = {name: tensor.double().requires_grad_() for name, tensor in longer.items()}
    y = fla.run(problem, dtype, **moved)
    expected = fla.REFERENCES[problem.rule](**plain)
    weights = torch.cat([gradient] * 3, 1)
    computed = torch.autograd.grad(y, list(moved.values()), weights.to(y))
    right = torch.autograd.grad(expected, list(plain.values()), weights.double())
    assert relative_error(y, expected) < fla.TOLERANCE
    for name, gradient, reference in zip(given, computed, right, strict=True):
        assert relative_error(gradient, reference) < fla.TOLERANCE, name
