"""The contract every mixer keeps, as tests that anyone can run on mixers of their own.

`python -m operators test NAME` runs them on an installed mixer; in a test file of one's own:

    from operators.testing.cases import Case
    from operators.testing.contract import MixerContract
    from operators.testing.properties import CardContract

    class TestMine(MixerContract):        # shapes, types, gradients, cost, copies, …
        cases = (Case("mine"), Case("mine", operators.BARE))

    class TestMyCard(CardContract):       # every property on the card, where claimed and where denied
        cases = (Case("mine", operators.BARE),)

Give both shells: the common one's norm hides a wrong factor, and in the bare one autocast has little to do.
A card's `exempt` maps a test's name, without `test_`, to the reason why that test is skipped; with a shell in brackets,
as in `extreme_inputs[published]`, it is skipped in that shell alone.
"""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from operators import InputError
from operators.testing.cases import COND, Case, Gradients, noise, run, run_with_gradients, tokens
from operators.testing.checks import assert_close, assert_differs, assert_finite
from operators.testing.counter import count_macs

DTYPES = (torch.float32, torch.float64)
BF16_TOLERANCE = 0.02  # measured: 0.4 to 0.7 %, three roundings to 8 bits
F32_TOLERANCE = 1e-5
F64_TOLERANCE = 1e-12


def skip_if_exempt(case: Case, promise: str) -> None:
    """Skip the running test if the card exempts the mixer from that promise, for the card's reason."""
    for name in (promise, f"{promise}[{case.shell}]"):
        if name in case.card.exempt:
            pytest.skip(f"{case.name} is exempt: {case.card.exempt[name]}")


class Contract:
    """Runs every test of a subclass on every one of its `cases`, and skips those a card is exempt from."""

    cases: ClassVar[Sequence[Case]] = ()

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            name = metafunc.function.__name__
            marks = [pytest.mark.slow if cls.is_slow(name, case) else () for case in cls.cases]
            cases = [pytest.param(case, marks=mark) for case, mark in zip(cls.cases, marks, strict=True)]
            metafunc.parametrize("case", cases, ids=[str(case) for case in cls.cases])

    @classmethod
    def is_slow(cls, test: str, case: Case) -> bool:
        """Whether a test of a case is slow: compiling takes seconds, and tells little in another shell."""
        return test == "test_compile" and case.shell != "common"

    @pytest.fixture(autouse=True)
    def _exemption(self, request: pytest.FixtureRequest, case: Case) -> None:
        skip_if_exempt(case, request.function.__name__.removeprefix("test_"))

    @classmethod
    def promises(cls) -> list[str]:
        """Names of the tests, without `test_`."""
        return sorted(name.removeprefix("test_") for name in dir(cls) if name.startswith("test_"))


class MixerContract(Contract):
    """What holds for every mixer in every shell and with every parameter."""

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_shape_and_dtype(self, case: Case, dtype: torch.dtype) -> None:
        """Output has the input's shape, type and device, on square, odd and oblong grids."""
        for grid in case.grids:
            x = tokens(grid, dtype=dtype)
            y = run(case.build(grid, dtype=dtype), x)
            assert_like(y, x, f"output on {grid}")
            assert_finite(y, f"output on {grid}")

    def test_serves_grids(self, case: Case) -> None:
        """One mixer serves every grid; with `fixed_grid`, only its own, and refuses the others."""
        first, *others = case.grids
        mixer = case.build(first)
        for grid in others:
            if case.card.fixed_grid:
                with pytest.raises(InputError):
                    run(mixer, tokens(grid))
            else:
                assert_finite(run(mixer, tokens(grid)), f"output on {grid}")
        if not case.card.fixed_grid:
            assert_finite(run(case.build(None), tokens(first)), "output without a nominal grid")

    def test_min_grid(self, case: Case) -> None:
        """The smallest grid is served, a smaller one refused, in either direction."""
        height, width = case.card.min_grid
        mixer = case.build((height, width))
        y = run(mixer, tokens((height, width)))
        assert_like(y, tokens((height, width)), "output on the smallest grid")
        assert_finite(y, "output on the smallest grid")
        for grid in ((height - 1, width), (height, width - 1)):
            with pytest.raises(InputError):
                run(mixer, tokens(grid))

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_batch_independence(self, case: Case, training: bool) -> None:
        """An image's output does not depend on the other images of its batch, nor on whether there are any."""
        grid = case.grids[1]
        x = tokens(grid, batch=3, dtype=torch.float64)
        others = torch.cat([x[:1], tokens(grid, batch=2, dtype=torch.float64, seed=9)])
        mixer = case.build(grid, dtype=torch.float64).train(training)
        y = run(mixer, x)
        assert_close(run(mixer, others)[:1], y[:1], F64_TOLERANCE, "output of an image among others")
        for i in range(3):
            assert_close(run(mixer, x[i : i + 1]), y[i : i + 1], F64_TOLERANCE, f"output of image {i} alone")

    def test_determinism(self, case: Case) -> None:
        """The same seed makes the same mixer, and two calls give the same bits, gradients included."""
        grid = case.grids[1]
        first, second = case.build(grid).train(), case.build(grid).train()
        for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
            assert_close(a, b, 0, name)
        results = [run_with_gradients(m, tokens(grid)) for m in (first, first, second)]
        for y, gradients in results[1:]:
            assert_close(y, results[0][0], 0, "output")
            assert_gradients(gradients, results[0][1], 0, "second time")

    def test_reads_only(self, case: Case) -> None:
        """The input stays as it was."""
        x = tokens(case.grids[1])
        before = x.clone()
        run(case.build(case.grids[1]), x)
        assert_close(x, before, 0, "input after the call")

    def test_memory_layout(self, case: Case) -> None:
        """An input that is channels first in memory gives the same output."""
        grid = case.grids[1]
        mixer, x = case.build(grid, dtype=torch.float64), tokens(grid, dtype=torch.float64)
        channels_first = x.movedim(-1, 1).contiguous().movedim(1, -1)
        assert_close(run(mixer, channels_first), run(mixer, x), F64_TOLERANCE, "output of a strided input")

    def test_autocast(self, case: Case) -> None:
        """Under bfloat16 autocast the output keeps its type and is near the one without; gradients are finite."""
        grid = case.grids[2]
        mixer, x = case.build(grid), tokens(grid)
        expected = run(mixer, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, gradients = run_with_gradients(mixer, x)
        assert_close(y, expected, BF16_TOLERANCE, "output under autocast")
        for name, gradient in gradients.items():
            if gradient is not None:
                assert_finite(gradient, f"gradient of {name} under autocast")

    def test_compile(self, case: Case) -> None:
        """`torch.compile` traces forward and backward into the same numbers, in one graph if parameters are default."""
        _compiled_like_eager(case, "aot_eager")

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
    def test_compile_inductor(self, case: Case) -> None:
        """As `test_compile`, with generated code."""
        _compiled_like_eager(case, "inductor")

    def test_state_dict(self, case: Case) -> None:
        """A saved state, plain tensors only, loads strictly into a mixer of another seed and gives the same bits."""
        grid = case.grids[1]
        mixer, other = case.build(grid), case.build(grid, seed=7)
        file = io.BytesIO()
        torch.save(mixer.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        assert_close(run(other, tokens(grid)), run(mixer, tokens(grid)), 0, "output after loading")

    def test_gradients(self, case: Case) -> None:
        """As initialised, every parameter gets a finite gradient that is not all zero, and so does the input."""
        grid = case.grids[1]
        mixer = case.build(grid).train()
        _, gradients = run_with_gradients(mixer, tokens(grid))
        for name, gradient in gradients.items():
            assert gradient is not None, f"{name} gets no gradient"
            assert_finite(gradient, f"gradient of {name}")
            assert gradient.count_nonzero() > 0, f"gradient of {name} is zero"

    def test_extreme_inputs(self, case: Case) -> None:
        """No NaN and no infinity for zeros, huge and tiny inputs and one huge token, nor in the gradients (float32)."""
        grid = case.grids[1]
        spike = tokens(grid)
        spike[:, 2, 3] *= 1e6
        extremes = {
            "zeros": torch.zeros_like(spike),
            "1e4": 1e4 * tokens(grid),
            "1e-20": 1e-20 * tokens(grid),
            "one huge token": spike,
        }
        mixer = case.build(grid)
        for kind, x in extremes.items():
            y, gradients = run_with_gradients(mixer, x)
            assert_finite(y, f"output for {kind}")
            for name, gradient in gradients.items():
                if gradient is not None:
                    assert_finite(gradient, f"gradient of {name} for {kind}")

    def test_cost(self, case: Case) -> None:
        """`cost()` counts the parameters there are, and the MACs that one image more makes the counter see."""
        canonical = getattr(case.core, "canonical", {})
        for grid in case.grids:
            mixer = case.build(grid, **canonical)
            cost = mixer.cost(*grid)
            there = sum(parameter.numel() for parameter in mixer.parameters())
            assert cost.parameters == there, f"cost of {cost.parameters} parameters, there are {there}"
            # What is done once for a whole batch, such as building propagators, drops out of the difference.
            # A mixer for each count: one may keep what it has built.
            more, fewer = (
                count_macs(run, case.build(grid, **canonical), tokens(grid, batch=batch)) for batch in (3, 2)
            )
            seen = more - fewer
            assert abs(cost.macs - seen) <= max(1, 1e-6 * seen), (
                f"cost on {grid}: {cost.macs} MACs, the counter saw {seen:g}"
            )
            assert case.build(grid).cost(*grid) == cost, "the cost depends on the way it is computed"

    def test_no_weight_decay(self, case: Case) -> None:
        """Wishes to the optimiser name parameters that exist."""
        mixer = case.build(case.grids[0])
        unknown = mixer.no_weight_decay() - dict(mixer.named_parameters()).keys()
        assert not unknown, f"no_weight_decay names what is not a parameter: {sorted(unknown)}"

    def test_copies(self, case: Case) -> None:
        """Deep copies and pickles, also of a mixer that has served, give the same bits."""
        grid = case.grids[1]
        mixer, x = case.build(grid), tokens(grid)
        y = run(mixer, x)
        assert_close(run(copy.deepcopy(mixer), x), y, 0, "output of a deep copy")
        assert_close(run(pickle.loads(pickle.dumps(mixer)), x), y, 0, "output of a pickle")

    def test_inspect(self, case: Case) -> None:
        """`inspect` gives finite tensors by name, and leaves the output as it was."""
        grid = case.grids[1]
        mixer, x = case.build(grid), tokens(grid)
        y = run(mixer, x)
        cond = noise(2, COND) if mixer.core.needs_cond else None
        shown: dict[str, Any] = mixer.inspect(x, cond)
        for name, tensor in shown.items():
            assert isinstance(name, str), f"inspect names a tensor {name!r}"
            assert isinstance(tensor, torch.Tensor), f"inspect gives {name} as {type(tensor).__name__}"
            assert_finite(tensor, f"inspect's {name}")
        assert_close(run(mixer, x), y, 0, "output after inspect")

    def test_cond(self, case: Case) -> None:
        """A mixer that needs a condition refuses to go without and heeds it; the others ignore it."""
        grid = case.grids[1]
        mixer, x = case.perturbed(grid), tokens(grid, dtype=torch.float64)
        a, b = noise(2, COND, dtype=torch.float64), noise(2, COND, dtype=torch.float64, seed=8)
        with torch.no_grad():
            if mixer.core.needs_cond:
                with pytest.raises(InputError):
                    mixer(x)
                assert_differs(mixer(x, a), mixer(x, b), 1e-6, "outputs under two conditions")
            else:
                assert_close(mixer(x, a), mixer(x), 0, "output with a condition that is not needed")

    def test_meta_device(self, case: Case) -> None:
        """Builds and runs on the meta device: shapes without memory."""
        grid = case.grids[1]
        with torch.device("meta"):
            mixer = case.build(grid)
        x = tokens(grid).to("meta")
        assert_like(run(mixer, x), x, "output on the meta device")

    def test_backends_agree(self, case: Case) -> None:
        """Each backend that is there says its name and gives the output and the gradients of the last, plainest one.

        With parameters other than the defaults a backend may refuse to serve, but not all may. Where there is a GPU,
        backends are available that refuse the CPU's tensors.
        """
        grid, backends = case.at_least(3, 5), case.card.backends  # small: a plain reference may be slow
        available = case.core.availability()
        assert list(available) == list(backends), "availability() must answer for the card's backends"
        automatic = case.build(grid).backend
        assert automatic in backends, f"backend=auto says {automatic!r}, the card {backends}"
        usable = [name for name in backends if available[name] is None]
        assert usable, f"no backend is available: {available}"
        served: list[tuple[torch.Tensor, Gradients]] = []
        for name in reversed(usable):
            try:
                mixer = case.perturbed(grid, dtype=torch.float32, backend=name)
            except InputError:
                assert case.params, f"backend={name} is available and refuses the default parameters"
                continue
            try:
                y, gradients = run_with_gradients(mixer, tokens(grid))
            except InputError:
                assert torch.cuda.is_available(), f"backend={name} is available and refuses to serve"
                continue
            assert mixer.backend == name, f"backend={name} says it is {mixer.backend}"
            served.append((y, gradients))
            assert_close(y, served[0][0], F32_TOLERANCE, f"output of {name}")
            assert_gradients(gradients, served[0][1], 10 * F32_TOLERANCE, name)
        assert served, "no backend serves these parameters"


def assert_like(y: torch.Tensor, x: torch.Tensor, name: str) -> None:
    """Fail unless y has the shape, the type and the device of x."""
    actual, expected = ((tuple(t.shape), t.dtype, t.device.type) for t in (y, x))
    assert actual == expected, f"{name}: {actual}, expected {expected}"


def assert_gradients(actual: Gradients, expected: Gradients, tolerance: float, name: str) -> None:
    """Fail unless the same quantities have gradients, and the same ones up to `tolerance`."""
    for quantity, gradient in actual.items():
        reference = expected[quantity]
        if gradient is None or reference is None:
            assert gradient is reference, f"{name}: only one of two calls gives {quantity} a gradient"
        else:
            assert_close(gradient, reference, tolerance, f"{name}: gradient of {quantity}")


def _compiled_like_eager(case: Case, backend: str) -> None:
    grid = case.grids[1]
    mixer, x = case.build(grid).train(), tokens(grid)
    expected, expected_gradients = run_with_gradients(mixer, x)
    torch.compiler.reset()
    with warnings.catch_warnings():
        # Torch's compiler uses what torch deprecates, looks at the gradients of tensors beyond a graph break, and
        # hands complex numbers back to eager kernels.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
        compiled = torch.compile(mixer, backend=backend, fullgraph=not case.params)
        y, gradients = run_with_gradients(mixer, x, through=compiled)
    assert_close(y, expected, F32_TOLERANCE, "compiled output")
    assert_gradients(gradients, expected_gradients, 10 * F32_TOLERANCE, "compiled")
