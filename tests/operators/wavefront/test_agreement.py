"""Every backend computes what the loop over cells computes, output and all gradients, from every corner."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from operators import wavefront
from operators.testing.checks import assert_close
from operators.wavefront import ops
from tests.operators.wavefront.cases import ENGINES, GRIDS, SCANS, arguments, fixed, noise, results

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
NAMES = tuple(SCANS)
# Torch's own, when forward mode is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def check(name, given, tolerance, **options):
    expected = results(name, given, backend="reference", **options)
    for backend in ENGINES:
        for key, found in results(name, given, backend=backend, **options).items():
            if expected[key].count_nonzero():
                assert_close(found, expected[key], tolerance, f"{backend} {key}")
            else:  # rates of a single cell
                assert not found.count_nonzero(), f"{backend} {key}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_output_and_gradients_equal_the_reference(name, grid):
    """Seventeen channels are two blocks, the second with idle lanes; nineteen rows are three bands."""
    check(name, arguments(name, grid, channels=17, size=2), TOLERANCE[torch.float64])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("bottom", "right"), [(False, True), (True, False), (True, True)])
def test_every_corner_is_a_flip(name, bottom, right):
    given = arguments(name, (10, 3), size=3)
    check(name, given, TOLERANCE[torch.float64], bottom=bottom, right=right)
    axes = [axis for axis, flipped in ((1, bottom), (2, right)) if flipped]
    turned = {key: tensor.flip(axes) if tensor.ndim == 4 else tensor for key, tensor in fixed(given).items()}
    scan, _ = SCANS[name]
    flipped = scan(**fixed(given), bottom=bottom, right=right, backend="reference")
    assert_close(flipped, scan(**turned, backend="reference").flip(axes), 1e-14, "y")


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    given = arguments(name, (10, 6), channels=5, dtype=torch.float32)
    exact = {key: tensor.detach().double().requires_grad_() for key, tensor in given.items()}
    expected = results(name, exact, backend="reference")
    for backend in ENGINES:
        for key, found in results(name, given, backend=backend).items():
            assert found.dtype == torch.float32
            assert_close(found.double(), expected[key], TOLERANCE[torch.float32], f"{backend} {key}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("span", [1, 2, 100])
def test_the_height_of_a_band_changes_nothing(monkeypatch, name, span):
    given = arguments(name, (7, 3), size=2)
    expected = results(name, given, backend="reference")
    monkeypatch.setattr(ops, "SPAN", span)
    for key, found in results(name, given, backend="cpu").items():
        assert_close(found, expected[key], 1e-12, key)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_the_reference_are_those_of_differences(name):
    given = arguments(name, (2, 3), batch=1, channels=1, size=2)
    scan, _ = SCANS[name]

    def function(*tensors):
        return scan(**dict(zip(given, tensors, strict=True)), backend="reference")

    assert gradcheck(function, tuple(given.values()))


@pytest.mark.parametrize("name", NAMES)
def test_antidiagonals_have_second_derivatives(name):
    given = arguments(name, (2, 2), batch=1, channels=1, size=1)
    scan, _ = SCANS[name]

    def function(*tensors):
        return scan(**dict(zip(given, tensors, strict=True)), backend="diagonals")

    assert gradgradcheck(function, tuple(given.values()))


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_takes_antidiagonals(name):
    given = fixed(arguments(name, (3, 4)))
    scan, _ = SCANS[name]
    direction = noise(torch.Generator().manual_seed(3), *given["u"].shape)

    def function(u):
        return scan(**{**given, "u": u})

    y, tangent = torch.func.jvp(function, (given["u"],), (direction,))
    assert_close(y, function(given["u"]), 1e-12, "y")
    assert_close(tangent, function(direction), 1e-12, "tangent")  # linear in u, all else held fixed


@pytest.mark.parametrize("name", NAMES)
def test_broadcast_and_sliced_inputs(name):
    """Strides of zero, of two and in the wrong order."""
    given = arguments(name, (5, 4), channels=4)
    given["u"] = given["u"].detach()[..., :1].expand(2, 5, 4, 4).requires_grad_()
    given["C" if "C" in given else "C_row"] = noise(torch.Generator().manual_seed(2), 2, 4, 5, 8)[..., ::2].mT.mT
    given = {key: tensor.detach() for key, tensor in given.items()}
    given = {key: t.transpose(1, 2) if t.shape[1:3] == (4, 5) else t for key, t in given.items()}
    scan, _ = SCANS[name]
    expected = scan(**given, backend="reference")
    for backend in ENGINES:
        assert_close(scan(**given, backend=backend), expected, 1e-12, f"{backend} y")


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_image_spares_the_others(name):
    given = fixed(arguments(name, batch=3, channels=20, dtype=torch.float32))
    scan, _ = SCANS[name]
    clean = scan(**given, backend="cpu")
    given["u"][1] = float("nan")
    found = scan(**given, backend="cpu")
    assert found[1].isnan().all()
    assert torch.equal(found[::2], clean[::2])


@pytest.mark.parametrize("name", NAMES)
def test_no_images(name):
    for backend in wavefront.BACKENDS:
        found = results(name, arguments(name, (3, 2), batch=0), backend=backend)
        assert found["y"].shape == (0, 3, 2, 3)
        assert not any(part.count_nonzero() for part in found.values())
