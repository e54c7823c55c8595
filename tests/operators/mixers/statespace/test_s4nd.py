import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make, set_to

WIDTH = 4


def lines(core, system, length):
    """By lag from 1 − L to L − 1, (r, D, 2L − 1), by the formulas, with complex numbers."""
    copies = WIDTH // len(system.A_log)
    A = torch.complex(-system.A_log.exp(), system.A_imag).repeat(copies, 1)
    step, C = system.log_step.exp()[:, None], torch.view_as_complex(system.C)
    if core.rows.bandlimit is not None:
        C = C * (step * A.imag.abs() / (2 * math.pi) < core.rows.bandlimit / 2)
    z = A * step
    w, b = (z.exp(), (z.exp() - 1) / A) if system.rule == "zoh" else ((1 + z / 2) / (1 - z / 2), step / (1 - z / 2))
    made = torch.stack([2 * (C * b * w**lag).sum(-1).real for lag in range(length)], -1)
    if not core.bidirectional:
        return torch.cat([torch.zeros_like(made[..., 1:]), made], -1)
    forward, backward = made.chunk(2)
    return torch.cat([backward[..., : length - 1].flip(-1), forward], -1)


def definition(core, x):
    """Along rows, then along columns, for each outer product."""
    height, width = x.shape[1:3]
    rows, columns = lines(core, core.rows, height), lines(core, core.columns, width)
    total = 0
    for k, m in zip(rows, columns, strict=True):
        along = torch.stack([sum(m[:, j - t + width - 1] * x[:, :, t] for t in range(width)) for j in range(width)], 2)
        total = total + torch.stack(
            [sum(k[:, i - t + height - 1] * along[:, t] for t in range(height)) for i in range(height)], 1
        )
    return total / len(rows) + core.D * x


CASES = (
    {},
    {"tensor_rank": 3, "rule": "bilinear", "n_ssm": None},
    {"bidirectional": False, "start": "legs", "n_ssm": 2, "bandlimit": 0.7},
)


@pytest.mark.parametrize("params", CASES, ids=str)
@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (5, 2)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make("s4nd", WIDTH, state_dim=3, backend="fft", **params), image(*grid, width=WIDTH)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-10, f"gradient of {name}")


def test_the_rank_of_the_kernel_is_the_tensor_rank():
    for rank in (1, 2):
        mixer = make("s4nd", WIDTH, tensor_rank=rank)
        set_to(0.0, mixer.core.D)
        values = torch.linalg.svdvals(mixer.inspect(image(5, 6, width=WIDTH))["kernel"])
        assert (values[:, rank:] < 1e-12 * values[:, :1]).all()
        assert (values[:, rank - 1] > 1e-6 * values[:, 0]).all()


def test_half_the_step_on_a_grid_twice_as_fine_is_the_same_kernel():
    """w of half a step is the root of w: every second lag is the same up to the gain of the step."""
    coarse, fine = (make("s4nd", WIDTH) for _ in range(2))
    set_to(fine.core.rows.log_step - math.log(2), fine.core.rows.log_step)
    one, two = coarse.core.rows.kernels(5), fine.core.rows.kernels(10)
    pairs = two[..., ::2] + two[..., 1::2]  # what an input held for two samples gives at the second one
    assert_differs(two[..., ::2], one, 1e-2, "one of two lags")
    assert_close(pairs[..., 0], one[..., 0], 1e-12, "first lag")


def test_a_bandlimit_silences_what_tokens_cannot_show():
    open_, shut = make("s4nd", WIDTH, start="inv"), make("s4nd", WIDTH, start="inv", bandlimit=1)
    x = image(5, 6, width=WIDTH)
    assert_differs(shut(x), open_(x), 1e-3, "y")
    shut.core.rows.bandlimit = shut.core.columns.bandlimit = 1e6
    assert_close(shut(x), open_(x), 1e-12, "y without a limit")


def test_starts_and_wishes():
    core = operators.create("s4nd", 8, tensor_rank=2).core
    assert core.rows.A_log.shape == (1, 32)
    assert core.rows.C.shape == (4, 8, 32, 2)
    assert core.columns.log_step.exp().min() >= 0.1
    assert core.columns.log_step.exp().max() <= 1
    rest = {name for name, _ in core.named_parameters()} - core.no_weight_decay
    assert rest == {"D", "rows.C", "columns.C"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tensor_rank": 0}, r"mixer\.tensor_rank=0 must be an integer >= 1"),
        ({"bandlimit": -1}, r"mixer\.bandlimit=-1\.0 must be a number >= 0"),
        ({"start": "lag"}, r"mixer\.start='lag' is not known"),
        ({"bidirectional": "both"}, r"mixer\.bidirectional='both' is not known"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("s4nd", 16, **params)
    assert "\n" not in str(caught.value)
