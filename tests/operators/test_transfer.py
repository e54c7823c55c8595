"""Scans on larger grids, with steps rescaled or filtered, and scans that leave tokens out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import models
import operators
from operators import InputError, scan
from operators.mixers.scan.branch import Branch
from operators.scan.pruning import pruned_scan
from operators.scan.steps import filtered
from operators.testing.checks import assert_close, assert_differs
from operators.transfer import transferred
from tests.operators.mixers.drawn import image, make

SCANS = operators.names(family="scan")
NOMINAL, LARGER = (3, 4), (6, 8)


def by_definition(mixer, x, change):
    """`zigma` of rows on x (B, H, W, D), with steps dt (B, N, D) that become change(dt)."""
    (branch,) = mixer.core.branches
    v = x.flatten(1, 2)
    step, B, C = branch.maps(v)
    dt = change(F.softplus(step + branch.step.bias))
    y = scan.selective_scan(v.mT, dt.mT, -branch.A_log.exp(), B.mT, C.mT, branch.D, backend="reference")
    return y.mT.view_as(x)


def kept_by_loops(dt, share):
    """The steps (B, N, D) that LongMamba keeps, one channel after the other."""
    result = torch.zeros_like(dt)
    for image_index in range(dt.shape[0]):
        for channel in range(dt.shape[2]):
            column, total = dt[image_index, :, channel], 0.0
            for count, place in enumerate(column.argsort(descending=True).tolist()):
                total += column[place].item()
                if total > share * column.sum().item() and count:
                    break
                result[image_index, place, channel] = column[place]
    return result


def test_rescaled_steps_fade_over_the_same_part_of_an_image():
    mixer, x = make("zigma", grid=NOMINAL, order="row", backend="chunked"), image(*LARGER)
    with transferred(mixer, "rescaled"):
        y = mixer(x)
    assert_close(y, by_definition(mixer, x, lambda dt: dt / 2), 1e-12, "y")
    assert_differs(y, mixer(x), 1e-3, "y without a change")


def test_filtered_steps_are_the_largest_ones():
    mixer, x = make("zigma", grid=NOMINAL, order="row", backend="chunked"), image(*LARGER)
    with transferred(mixer, "filtered", remembered=0):
        y = mixer(x)
    assert_close(y, by_definition(mixer, x, lambda dt: kept_by_loops(dt, 0.25)), 1e-12, "y")


def test_channels_that_forget_are_not_filtered():
    dt = torch.rand(2, 20, 3, dtype=torch.float64) + 0.1
    rates = torch.tensor([[-9.0, -1e-3], [-9.0, -8.0], [-1e-3, -1e-3]], dtype=torch.float64)
    changed = filtered(dt, rates, 0.5, 1e-3)
    expected = kept_by_loops(dt, 0.5)
    expected[..., 1] = dt[..., 1]  # whose slowest state fades to exp(−8 · 0.5 · Σ dt)
    assert torch.equal(changed, expected)
    assert math.exp(-8 * 0.5 * dt[..., 1].sum(1).min()) < 1e-3


@pytest.mark.parametrize("way", ["rescaled", "filtered"])
@pytest.mark.parametrize("name", SCANS)
def test_every_scan_is_transferred(name, way):
    mixer = make(name, 8, grid=NOMINAL, backend="chunked")
    smaller, larger = image(*NOMINAL, width=8), image(*LARGER, width=8)
    plain = mixer(smaller), mixer(larger)
    with transferred(mixer, way, remembered=0):
        assert torch.equal(mixer(smaller), plain[0])
        assert_differs(mixer(larger), plain[1], 1e-6, "y")
    assert torch.equal(mixer(larger), plain[1])


def test_a_whole_model_is_transferred_and_a_refusal_leaves_nothing_behind():
    shape = {"image_size": (8, 8), "in_channels": 1, "num_classes": 3, "depth": 2, "dim": 8, "patch": 2}
    model = models.create("vit_nano", mixers=models.MixerSpec("fastvim"), **shape).eval()
    images = torch.randn(2, 1, 16, 16)
    with transferred(model, "rescaled"):
        changed = model(images)
        with pytest.raises(InputError, match="takes"):
            model.mixers[0](torch.zeros(1, 16, 16, 5))
        assert all(part.step_change is None for part in model.modules() if isinstance(part, Branch))
    assert_differs(changed, model(images), 1e-6, "logits")


def test_what_cannot_be_transferred_is_refused():
    with (
        pytest.raises(InputError, match=r"way='rescale' is not known: .*; did you mean 'rescaled'"),
        transferred(make("mamba", grid=NOMINAL), "rescale"),
    ):
        pass
    for mixer in (make("attention", grid=NOMINAL), make("mamba")):
        with pytest.raises(InputError, match="no mixer of this model has"), transferred(mixer, "rescaled"):
            pass


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_a_pruned_scan_is_the_whole_one_of_zeros_in_between(reverse, backend):
    torch.manual_seed(0)
    u, raw = (torch.randn(2, 3, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    B, C = (torch.randn(2, 4, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    A, D = torch.randn(3, 4, dtype=torch.float64).exp().neg().requires_grad_(), torch.randn(3, dtype=torch.float64)
    kept = torch.tensor([[0, 3, 4, 9], [2, 5, 8, 10]])
    at = kept[:, None].expand(-1, 3, -1)
    alone = torch.zeros(2, 3, 11, dtype=torch.float64).scatter(2, at, 1.0)
    delta = F.softplus(raw)
    whole = scan.selective_scan(alone * u, delta, A, B, C, D, backend="reference", reverse=reverse).gather(2, at)
    y = pruned_scan(u, delta, A, B, C, kept, D, reverse=reverse, backend=backend)
    assert_close(y, whole, 1e-12, "y")
    weight = torch.randn_like(y)
    leaves = {"u": u, "raw": raw, "A": A, "B": B, "C": C}
    expected = torch.autograd.grad((weight * whole).sum(), list(leaves.values()), retain_graph=True)
    for name, found, wanted in zip(
        leaves, torch.autograd.grad((weight * y).sum(), list(leaves.values())), expected, strict=True
    ):
        assert_close(found, wanted, 1e-11, f"gradient of {name}")
    everything = torch.arange(11).expand(2, -1)
    unpruned = scan.selective_scan(u, delta, A, B, C, backend="reference", reverse=reverse)
    assert_close(pruned_scan(u, delta, A, B, C, everything, reverse=reverse), unpruned, 1e-12, "y of all tokens")


@pytest.mark.parametrize("kept", [[[1, 1]], [[2, 1]], [[0, 3]], [[-1, 1]], [[]]])
def test_places_that_cannot_be_are_refused(kept):
    u, shared = torch.ones(1, 2, 3), torch.ones(1, 1, 3)
    with pytest.raises(InputError, match="kept must hold places"):
        pruned_scan(u, u, -torch.ones(2, 1), shared, shared, torch.tensor(kept, dtype=torch.long))
