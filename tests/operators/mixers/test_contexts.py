"""What a call keeps for later calls must not depend on the context of that first call."""

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from operators.pde import filter_op, matrices_op, propagators
from operators.scan import orders
from operators.testing.cases import Case, run_with_gradients, tokens
from operators.testing.checks import assert_close
from operators.testing.contract import assert_gradients
from tests.operators.options import CASES

GRID = (5, 6)


@contextlib.contextmanager
def default_type(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CONTEXTS = {
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "meta device by default": lambda: torch.device("meta"),
    "float64 by default": lambda: default_type(torch.float64),
    "fake tensors": lambda: FakeTensorMode(allow_non_fake_inputs=True),
}


@pytest.fixture(autouse=True)
def _clear_afterwards():
    yield
    clear()


def clear():
    """Caches of tensors as in a fresh process."""
    for cache in (matrices_op._waves, filter_op._plan, propagators._kept_waves, orders._tokens.__wrapped__):
        cache.cache_clear()


QUICK = ("inference mode", "meta device by default")


@pytest.mark.parametrize(
    "context", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CONTEXTS]
)
@pytest.mark.parametrize("case", [case for case in CASES if case.params.get("method") != "reference"], ids=str)
def test_a_call_in_any_context_leaves_later_calls_alone(case, context):
    x = tokens(GRID)
    clear()
    y, gradients = run_with_gradients(case.build(GRID).train(), x)
    mixer, other = case.build(GRID), case.build(GRID)
    clear()
    with CONTEXTS[context]():
        inputs = torch.empty(x.shape) if context == "fake tensors" else x
        with torch.device("cpu") if context != "fake tensors" else contextlib.nullcontext():
            cond = torch.ones(len(x), 6) if mixer.core.needs_cond else None
        mixer(inputs, cond)
    for after in (mixer.train(), other.train()):
        again, later = run_with_gradients(after, x)
        assert_close(again, y, 0, f"output after a call in {context}")
        assert_gradients(later, gradients, 0, f"after a call in {context}")


def test_the_gated_norm_makes_its_numbers_on_the_cpu():
    """Large enough for the compiled pass."""
    mixer, x = Case("identity").build(None), tokens((32, 32), batch=4)
    expected = mixer(x)
    with torch.device("meta"):
        y = mixer(x)
    assert_close(y, expected, 0, "output with another default device")
