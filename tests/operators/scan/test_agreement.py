"""Every backend computes what the loop over steps computes, output and all gradients, in all corners."""

import pytest
import torch

from operators import scan
from operators.scan import chunked, cpu, selective_scan
from operators.testing.checks import assert_close
from tests.operators.scan.cases import ENGINES, OPTIONS, REGIMES, arguments, fixed, results
from tests.pairwise import full_product, pairwise, row_name

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
NOTHING = 1e-30
"""What float32 may lose: below this the references of exp(dt A) have left its range."""

AXES = {
    "length": (1, 2, 63, 64, 65, 1000),
    "regime": REGIMES,
    "dtype": (torch.float64, torch.float32),
    "reverse": (False, True),
    "channels_last": (False, True),
    "softplus": (False, True),
    "options": tuple(OPTIONS),
    "sizes": ((1, 1, None), (5, 3, None), (6, 4, 3), (35, 2, 5), (70, 5, 1)),  # channels, states, groups
}


def check(row):
    row = dict(row)
    dtype, reverse = row.pop("dtype"), row.pop("reverse")
    channels, size, groups = row.pop("sizes")
    asked = {"reverse": reverse, "delta_softplus": row["softplus"]}
    make = {"channels": channels, "size": size, "groups": groups, **row}
    expected = results(arguments(**make), backend="reference", **asked)
    given = arguments(**make, dtype=dtype)
    for backend in ENGINES:
        for name, found in results(given, backend=backend, **asked).items():
            assert found.dtype == dtype, name
            if expected[name].abs().max() < NOTHING and dtype == torch.float32:
                assert found.abs().max() < NOTHING, f"{backend} {name}"
            else:
                assert_close(found.double(), expected[name], TOLERANCE[dtype], f"{backend} {name}")


@pytest.mark.parametrize("row", pairwise(AXES), ids=row_name)
def test_output_and_gradients_equal_the_reference(row):
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize("length", AXES["length"])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("sizes", AXES["sizes"], ids=str)
def test_output_and_gradients_equal_the_reference_in_the_full_product(length, regime, sizes):
    fixed_axes = {"length": (length,), "regime": (regime,), "sizes": (sizes,)}
    if length > 100:  # loops so long take minutes; what an option adds does not depend on the length
        fixed_axes["options"] = ("all",)
    for row in full_product({**AXES, **fixed_axes}):
        check(row)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_length_of_a_chunk_changes_nothing(monkeypatch, backend, steps, reverse):
    given = arguments(channels=18, length=23, groups=2, options="all")
    expected = results(given, backend="reference", reverse=reverse)
    monkeypatch.setattr(chunked, "CHUNK", steps)
    monkeypatch.setattr(cpu, "CHUNK", steps)
    for name, found in results(given, backend=backend, reverse=reverse).items():
        assert_close(found, expected[name], 1e-12, name)


def test_parallel_steps_equal_the_loop():
    a, b = torch.randn(2, 37, 3, dtype=torch.float64)
    h = start = torch.randn(3, dtype=torch.float64)
    loop = []
    for t in range(37):
        h = a[t] * h + b[t]
        loop.append(h)
    assert_close(chunked.recurrence(a, b, start), torch.stack(loop), 1e-12, "h")


@pytest.mark.parametrize("backend", ENGINES)
def test_broadcast_and_sliced_inputs(backend):
    """Strides of zero, of two and in the wrong order; gradients too may come broadcast."""
    given = arguments(channels=4, length=10, seed=3)
    given["u"] = given["u"].detach()[:, :1].expand(2, 4, 10).requires_grad_()
    given["delta"] = given["delta"].detach().repeat_interleave(2, -1)[..., ::2].requires_grad_()
    given["B"] = given["B"].detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    gradients = {}
    for name in (backend, "reference"):
        y = selective_scan(**given, backend=name)
        gradients[name] = [y.detach(), *torch.autograd.grad(y.sum(), list(given.values()))]
    for name, found, expected in zip(("y", *given), gradients[backend], gradients["reference"], strict=True):
        assert_close(found, expected, 1e-12, name)


@pytest.mark.parametrize("backend", ENGINES)
def test_the_output_keeps_the_layout_of_u(backend):
    given = fixed(arguments(channels=5, length=70, channels_last=True))
    assert selective_scan(**given, backend=backend).stride() == given["u"].stride()


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "initial_state"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
def test_what_is_not_finite_shows_where_it_does_in_the_reference(backend, name, bad):
    given = arguments(batch=2, channels=20, length=70, options="initial")
    with torch.no_grad():
        given[name][(0,) if name == "A" else (1, 2)].view(-1)[-1:] = bad
    if name == "A":
        given["A"].detach()[0, -1] = -bad
    expected = results(given, backend="reference")
    for key, found in results(given, backend=backend).items():
        same = found.isfinite() == expected[key].isfinite()
        assert same.all(), f"{key}: {(~same).sum()} of {same.numel()} differ"
    assert not all(value.isfinite().all() for value in expected.values())


@pytest.mark.parametrize("backend", ENGINES)
def test_a_bad_image_spares_the_others(backend):
    given = arguments(batch=3, channels=5, length=70, dtype=torch.float32)
    clean = selective_scan(**given, backend=backend)
    with torch.no_grad():
        given["u"][1] = float("nan")
    found = selective_scan(**given, backend=backend)
    assert found[1].isnan().all()
    assert torch.equal(found[::2], clean[::2])


@pytest.mark.parametrize("backend", scan.BACKENDS[1:])
def test_no_images(backend):
    found = results(arguments(batch=0, options="all"), backend=backend)
    assert found["y"].shape == (0, 3, 9)
    assert found["last"].shape == (0, 3, 4)
    assert torch.equal(found["dA"], torch.zeros(3, 4, dtype=torch.float64))
