"""The mixer `pde_ssm`: routes agree for every combination of options, and every option does what it says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import operators
from operators import BARE, InputError
from operators.mixers.equations.coefficients import MOST_DECAY
from operators.mixers.equations.options import TERMS
from operators.mixers.equations.pde_ssm import PdeSsm
from operators.pde import propagate
from operators.testing.checks import assert_close, assert_differs
from tests.pairwise import full_product, pairwise

OPTIONS: dict[str, list[Any]] = {
    "boundary": ["periodic", "neumann", "dirichlet", "absorbing"],
    "tensor": ["isotropic", "diagonal", "full"],
    "forcing": ["initial", "constant", "steady"],
    "terms": [s for n in range(4) for s in itertools.combinations(TERMS, n)],
    "condition": ["none", "input", "cond"],
    "units": ["image", "pixel"],
    "state": [1, 3],
    "coefficients": ["learned", "fixed"],
}


def meaningful(options: dict[str, Any]) -> bool:
    if options["forcing"] == "steady" and "reaction" not in options["terms"]:
        return False
    if options["tensor"] == "full" and "diffusion" not in options["terms"]:
        return False
    return options["condition"] == "none" or (bool(options["terms"]) and options["coefficients"] == "learned")


def make(grid: tuple[int, int] | None = (4, 5), dim: int = 4, seed: int = 0, **params: Any) -> operators.Mixer:
    torch.manual_seed(seed)
    return operators.create("pde_ssm", dim, grid=grid, cond_dim=3, shell=BARE, groups=2, **params).double()


def core(mixer: operators.Mixer) -> PdeSsm:
    assert isinstance(mixer.core, PdeSsm)
    return mixer.core


def outputs(mixer: operators.Mixer, x: torch.Tensor, cond: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and every gradient, of a dense random output gradient."""
    x = x.clone().requires_grad_()
    y = mixer(x, cond)
    parameters = dict(mixer.named_parameters())
    gradients = torch.autograd.grad(y, [x, *parameters.values()], torch.randn(y.shape, dtype=y.dtype))
    return {"output": y.detach(), "d input": gradients[0]} | {
        f"d {name}": gradient for name, gradient in zip(parameters, gradients[1:], strict=True)
    }


def check_routes(options: dict[str, Any], grid: tuple[int, int] = (3, 4)) -> None:
    x, cond = torch.randn(2, *grid, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    methods = ["reference", "fft", "auto"]
    if options["forcing"] == "initial" and options["tensor"] != "full":
        methods += ["separable", *(["compiled"] if options["condition"] == "none" else [])]
    results = {}
    for method in methods:
        mixer = make(method=method, **options)
        torch.manual_seed(1)
        results[method] = outputs(mixer, x, cond)
    for method in methods[1:]:
        for name, expected in results["reference"].items():
            assert_close(results[method][name], expected, 1e-9, f"{name} of {method} with {options}")


@pytest.mark.parametrize("options", pairwise(OPTIONS, meaningful), ids=str)
def test_every_route_equals_the_reference(options: dict[str, Any]) -> None:
    check_routes(options)


@pytest.mark.parametrize("grid", [(3, 4), (6, 5), (1, 7)], ids=str)
@pytest.mark.parametrize("state", [1, 2, 4])
@pytest.mark.parametrize("condition", ["none", "input"])
def test_separable_equals_the_reference_multiplied_out_or_not(
    grid: tuple[int, int], state: int, condition: str
) -> None:
    check_routes({"state": state, "forcing": "initial", "tensor": "diagonal", "condition": condition}, grid)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", OPTIONS["boundary"])
@pytest.mark.parametrize("forcing", OPTIONS["forcing"])
def test_every_route_equals_the_reference_full_product(boundary: str, forcing: str) -> None:
    for options in full_product(OPTIONS | {"boundary": [boundary], "forcing": [forcing]}, meaningful):
        check_routes(options)


@pytest.mark.parametrize("forcing", ["initial", "constant", "steady"])
@pytest.mark.parametrize("units", ["image", "pixel"])
def test_is_a_weighted_sum_of_propagated_states(forcing: str, units: str) -> None:
    mixer = make(forcing=forcing, units=units, tensor="full", boundary="neumann")
    with torch.no_grad():
        core(mixer).shear.add_(torch.randn_like(core(mixer).shear))
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    c = core(mixer).solve_coefficients(x, None)
    assert c.kyy is not None
    assert c.kxy is not None
    assert c.kxx is not None
    scale = 18 if units == "image" else 20  # pixels of this image, or of the nominal grid
    expected = core(mixer).skip * x
    for s in range(4):
        k = torch.stack([torch.stack([c.kyy, c.kxy], -1), torch.stack([c.kxy, c.kxx], -1)], -2)[:, s] * scale
        v = torch.stack([c.vy, c.vx], -1)[:, s] * scale**0.5
        state = propagate(
            x.permute(0, 3, 1, 2), diffusion=k, velocity=v, reaction=c.r[:, s], boundary="neumann", forcing=forcing
        )
        expected = expected + core(mixer).readout[:, s] * state.permute(0, 2, 3, 1)
    assert_close(mixer(x), expected, 1e-10, "weighted sum of states")


def test_units_agree_on_the_nominal_grid_only() -> None:
    image, pixel = make(units="image"), make(units="pixel")
    x, larger = torch.randn(2, 4, 5, 4, dtype=torch.float64), torch.randn(2, 8, 10, 4, dtype=torch.float64)
    assert_close(image(x), pixel(x), 1e-12, "output on the nominal grid")
    assert_differs(image(larger), pixel(larger), 0.01, "output on a finer grid")


def test_image_units_keep_the_operator_under_refinement() -> None:
    mixer = make(grid=(8, 8), units="image")
    fine = torch.arange(32, dtype=torch.float64) / 32
    wave = torch.cos(2 * torch.pi * (fine[:, None] + 2 * fine[None, :]))[None, :, :, None].repeat(1, 1, 1, 4)
    assert_close(mixer(wave[:, ::2, ::2]), mixer(wave)[:, ::2, ::2], 1e-10, "sampled output")


def test_without_terms_tokens_do_not_meet() -> None:
    mixer = make(terms=[])
    x = torch.randn(1, 4, 5, 4, dtype=torch.float64)
    gain = core(mixer).readout.sum(-1) + core(mixer).skip
    assert_close(mixer(x), gain * x, 1e-12, "output without terms")
    assert mixer.backend == "pointwise"
    assert mixer.cost(4, 5).mixing_macs == 0


def test_fixed_coefficients_are_state_and_not_parameters() -> None:
    mixer = make(coefficients={"convection": "fixed", "diffusion": "learned"})
    learned, fixed = dict(mixer.core.named_parameters()), dict(mixer.core.named_buffers())
    assert {"log_length", "reaction_logit"} <= learned.keys()
    assert fixed.keys() == {"velocity"}
    assert "core.velocity" in mixer.state_dict()
    same = make(coefficients="learned")
    assert_close(core(mixer).velocity, core(same).velocity.detach(), 0, "initial velocity")


def test_conditioning_is_per_image_and_group() -> None:
    mixer = make(condition="cond", dim=6)
    cond = torch.randn(2, 3, dtype=torch.float64)
    shown = mixer.inspect(torch.randn(2, 4, 5, 6, dtype=torch.float64), cond)
    assert shown["diffusion"].shape == (2, 2, 4, 2)
    assert shown["velocity"].shape == (2, 2, 4, 2)
    assert shown["reaction"].shape == (2, 2, 4, 1)
    assert shown["kernel"].shape == (2, 6, 4, 5)
    assert_differs(shown["kernel"][0], shown["kernel"][1], 1e-3, "kernels of two conditions")
    with pytest.raises(InputError, match="needs cond"):
        mixer(torch.randn(2, 4, 5, 6, dtype=torch.float64))


def test_condition_input_reads_the_pooled_image_only() -> None:
    mixer = make(condition="input")
    x = torch.randn(1, 4, 5, 4, dtype=torch.float64)
    u = torch.randn_like(x)
    permuted = x.flatten(1, 2)[:, torch.randperm(20)].view_as(x)
    assert_close(mixer.core(u, x=permuted), mixer.core(u, x=x), 1e-12, "output when x is shuffled")
    assert_differs(mixer.core(u, x=x + 1), mixer.core(u, x=x), 1e-4, "output when x is brighter")


def test_reaction_stays_between_minus_eight_and_zero() -> None:
    mixer = make(forcing="steady")
    for extreme in (-1e4, 0.0, 1e4):
        with torch.no_grad():
            core(mixer).reaction_logit.fill_(extreme)
        r = core(mixer).solve_coefficients(torch.zeros(1, 4, 5, 4), None).r
        assert r is not None
        assert -MOST_DECAY <= r.min() <= r.max() < 0


def test_initial_lengths_span_a_third_of_a_pixel_to_half_the_image() -> None:
    torch.manual_seed(0)
    mixer = operators.create("pde_ssm", 256, grid=(16, 16), tensor="isotropic")
    pixels = core(mixer).log_length.detach().exp() * 16
    assert 1 / 3 <= pixels.min() < 0.34
    assert 7.8 < pixels.max() <= 8.0001
    assert pixels.median() < (pixels.min() * pixels.max()).sqrt(), "the short end must be denser than log-uniform"


def test_auto_follows_the_grid_the_states_and_the_tensor() -> None:
    assert make(grid=(8, 8)).backend == "compiled"
    assert make(grid=(8, 8), condition="input").backend == "separable"
    assert make(grid=(8, 8), tensor="full").backend == "compiled_fft"
    assert make(grid=(8, 8), tensor="full", condition="input").backend == "fft"
    assert make(grid=(8, 8), forcing="constant").backend == "compiled_fft"
    assert make(grid=(8, 11), forcing="constant").backend == "fft", "no transforms of 11"
    assert make(grid=(8, 1), forcing="constant").backend == "fft", "none of 1"
    assert make(grid=(32, 32), state=1, condition="input").backend == "separable"
    assert make(grid=(32, 32), state=4, condition="input").backend == "fft"
    assert make(grid=(40, 40), state=1).backend == "compiled"
    assert make(grid=(42, 40), state=1).backend == "compiled_fft"
    assert make(grid=(41, 40), state=1).backend == "compiled"
    assert make(grid=(24, 24), state=4, boundary="neumann").backend == "compiled"
    assert make(grid=(25, 24), state=4, boundary="neumann").backend == "compiled_fft"
    assert make(grid=(8, 8), method="reference").backend == "reference"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"terms": ["difusion"]}, "did you mean 'diffusion'"),
        ({"terms": "diffusion"}, "must be a list"),
        ({"terms": ["diffusion", "diffusion"]}, "twice"),
        ({"boundary": "neuman"}, "did you mean 'neumann'"),
        ({"tensor": "diag"}, "did you mean 'diagonal'"),
        ({"forcing": "stady"}, "did you mean 'steady'"),
        ({"units": "pixels"}, "did you mean 'pixel'"),
        ({"condition": "class"}, "allowed are none, input, cond"),
        ({"coefficients": "learnt"}, "did you mean 'learned'"),
        ({"coefficients": {"diffusion": "fix"}}, "did you mean 'fixed'"),
        ({"coefficients": {"difusion": "fixed"}}, "did you mean 'diffusion'"),
        ({"terms": ["diffusion"], "coefficients": {"convection": "fixed"}}, "no 'convection'"),
        ({"state": 0}, "pde.state=0"),
        ({"state": 1.5}, "must be an integer"),
        ({"groups": 3, "condition": "input"}, "must divide"),
        ({"method": "fast"}, "pde.method"),
        ({"method": "fft", "backend": "separable"}, "contradict"),
        ({"method": "separable", "tensor": "full"}, "diagonal or isotropic"),
        ({"method": "separable", "forcing": "constant"}, "forcing='initial'"),
        ({"forcing": "steady", "terms": ["diffusion"]}, "needs decay"),
        ({"tensor": "full", "terms": ["convection"]}, "no diffusion"),
        ({"condition": "input", "terms": []}, "no learned coefficient"),
        ({"condition": "input", "coefficients": "fixed"}, "no learned coefficient"),
        ({"condition": "cond"}, "cond_dim"),
        ({"velocity": 1}, "has no 'velocity'"),
    ],
    ids=str,
)
def test_refusals(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        operators.create("pde_ssm", 4, grid=(4, 5), **params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["separable", "compiled", "fft", "compiled_fft"])
@pytest.mark.parametrize("change", ["add_", "data", "state dict", "fixed", "grid", "method"])
def test_what_is_kept_in_evaluation_follows_every_change(method: str, change: str) -> None:
    mixer = make(grid=(4, 5), dim=4, state=1, method=method, coefficients={"convection": "fixed"})
    x = torch.randn(8, 4, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        before = mixer(x)
        assert core(mixer)._kept is not None
        assert torch.equal(mixer(x), before), "from what is kept"
        if change == "add_":
            core(mixer).log_length.add_(0.5)
        elif change == "data":
            core(mixer).readout.data.mul_(2)
        elif change == "state dict":
            mixer.load_state_dict(
                make(grid=(4, 5), dim=4, seed=1, state=1, coefficients={"convection": "fixed"}).state_dict()
            )
        elif change == "fixed":
            core(mixer).velocity.mul_(2)
        elif change == "grid":
            x = x.transpose(1, 2).contiguous()
        elif change == "method":
            core(mixer).requested_backend = "compiled" if method == "separable" else "separable"
        after = mixer(x)
    fresh = mixer(x)  # with gradients, and so made anew
    assert_close(after, fresh.detach(), 1e-12, "output after the change")
    if change not in ("grid", "method"):
        assert_differs(after, before, 0.01, "output")


def test_what_is_kept_is_at_most_twice_the_field_and_no_part_of_the_state() -> None:
    mixer = make(grid=(4, 5), dim=4, state=4)
    names = set(mixer.state_dict())
    with torch.no_grad():
        mixer(torch.randn(1, 4, 5, 4, dtype=torch.float64))
        assert core(mixer)._kept is None
        mixer(torch.randn(5, 4, 5, 4, dtype=torch.float64))
    kept = core(mixer)._kept
    assert kept is not None
    assert 5 * 4 * 5 * 4 < sum(part.numel() for part in kept[2]) <= 2 * 5 * 4 * 5 * 4
    assert set(mixer.state_dict()) == names


def test_what_is_kept_has_the_type_of_the_parameters() -> None:
    mixer = make(grid=(4, 5), dim=4, state=1).float()
    x = torch.randn(8, 4, 5, 4)
    with torch.no_grad():
        mixer(x)
        after = mixer.double()(x.double())
    assert_close(after, mixer(x.double()).detach(), 1e-12, "output in float64")
