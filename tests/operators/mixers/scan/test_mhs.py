"""`mhs` against its definition by loops, and the attention over its routes."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.mixers.scan.mhs import PATTERNS, variation
from operators.scan import orders
from operators.testing.cases import noise, run
from operators.testing.checks import assert_close, assert_finite
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by, plain


def by_loops(mixer, patterns):
    core = mixer.core

    def head(v, pattern, branches):
        tokens, routes = list(v.flatten(0, 1)), []
        for name, branch in zip([n + e for n in PATTERNS[pattern] for e in ("", "_r")], branches, strict=True):
            visited = orders.permutation(name, *v.shape[:2]).tolist()
            found = dict(zip(visited, plain(branch, [tokens[token] for token in visited]), strict=True))
            routes.append(torch.stack([found[token] for token in range(len(tokens))]))
        y = torch.stack(routes)
        mean = y.mean(0)
        deviation = ((y - mean).square().sum(0) / 3).sqrt()
        above = (y - y.min(0).values).mean(0)
        return (y.sum(0) * F.relu(deviation / (above + 1e-5) - core.threshold)).view(v.shape)

    def mixed(x):
        parts = (x @ core.subspaces.weight.T).chunk(len(patterns), -1)
        heads = [
            head(v, p, list(core.branches)[4 * i : 4 * i + 4])
            for i, (v, p) in enumerate(zip(parts, patterns, strict=True))
        ]
        y = torch.cat(heads, -1)
        if core.norm is None:
            return y
        return F.layer_norm(y, y.shape[-1:], core.norm.weight, core.norm.bias, 1e-6) @ core.project.weight.T

    return mixed


@pytest.mark.parametrize(
    ("grid", "patterns", "params"),
    [
        ((3, 4), ["snake", "diagonal", "spiral", "raster"], {}),
        ((2, 3), ["spiral", "raster"], {"threshold": 0.5}),
        ((1, 2), ["diagonal", "snake", "snake"], {"project": False, "rank": 2}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, patterns, params):
    mixer = make("mhs", patterns=patterns, state_dim=2, **params)
    assert_defined_by(mixer, by_loops(mixer, patterns), image(*grid, batch=1), 1e-10)


def test_variation_is_that_of_the_definition_at_any_scale():
    routes = noise(4, 50, dtype=torch.float64)
    expected = routes.std(0) / ((routes - routes.amin(0)).mean(0) + 1e-5)
    assert_close(variation(routes), expected, 1e-12, "variation")
    assert_close(variation(routes + 3), expected, 1e-12, "variation of what is shifted")
    huge = variation(1e30 * routes.float())
    assert_finite(huge, "variation of numbers whose squares overflow")
    assert_close(huge.double(), (routes.std(0) / (routes - routes.amin(0)).mean(0)), 1e-6, "variation of huge numbers")
    equal = torch.ones(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(variation(equal).sum(), equal)
    assert variation(equal).abs().max() == 0
    assert_finite(gradient, "gradient of no variation")


def test_the_threshold_shuts_out_what_varies_less():
    x = image(3, 4)
    open_, shut = (make("mhs", project=False, patterns=["snake", "raster"], threshold=t) for t in (0.0, 10.0))
    assert run(open_, x).abs().min() > 0
    assert run(shut, x).abs().max() == 0


def test_heads_may_change_places_with_their_subspaces():
    patterns, width = ["snake", "spiral"], 3
    mixer, swapped = make("mhs", patterns=patterns), make("mhs", patterns=patterns[::-1])
    with torch.no_grad():
        for branch, other in zip(
            mixer.core.branches, [*swapped.core.branches[4:], *swapped.core.branches[:4]], strict=True
        ):
            other.load_state_dict(branch.state_dict())
        swapped.core.subspaces.weight.copy_(mixer.core.subspaces.weight.roll(width, 0))
        swapped.core.project.weight.copy_(mixer.core.project.weight.roll(width, 1))
        swapped.core.norm.weight.copy_(mixer.core.norm.weight.roll(width))
        swapped.core.norm.bias.copy_(mixer.core.norm.bias.roll(width))
    x = image(3, 4)
    assert_close(run(swapped, x), run(mixer, x), 1e-12, "y")


def test_what_is_shown():
    found = make("mhs", patterns=["snake", "spiral"], state_dim=2).inspect(image(3, 5))
    assert found["step"].shape == found["influence"].shape == (2, 8, 3, 5)
    assert found["variation"].shape == (2, 2, 3, 5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"patterns": []}, r"mixer\.patterns=\[\] must be a list of patterns, such as \[snake, raster\]"),
        ({"patterns": "snake"}, r"mixer\.patterns='snake' must be a list"),
        ({"patterns": ["snail"]}, r"pattern in mixer\.patterns='snail' is not known: .*; did you mean 'snake'\?"),
        ({"patterns": ["snake"] * 9}, r"mixer\.patterns has 9 heads, which must be at most as many as the width 8"),
        ({"patterns": ["snake"] * 3, "project": False}, r"has 3 heads, which must be a divisor of the width 8"),
        ({"threshold": -1}, r"mixer\.threshold=-1.0 must be a number >= 0"),
        ({"project": "yes"}, r"mixer\.project='yes' is not known"),
    ],
)
def test_refusals(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("mhs", 8, **params)
