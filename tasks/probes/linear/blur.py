"""Blur and deblur: a Gaussian filter, and its best linear inverse under noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from operators.errors import check_choice, check_number
from tasks.probes.linear.spectra import (
    BOUNDARIES,
    Field,
    Symbol,
    band_share,
    filtered,
    gaussian,
    in_band,
    mean_factor,
    noise,
)
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples


@dataclass(frozen=True, kw_only=True)
class Blur(Probe):
    """Band-limited noise, blurred by a Gaussian: diffusion with K = σ²/2 for a unit of time.

    The oracle blurs the input: no error. Chance is the variance of the blurred field.

    Attributes:
        sigma: standard deviation σ in pixels.
        anisotropy: ratio of the standard deviations along rows' and columns' coordinates; their product is σ².
        per_image: σ is drawn anew for each image, log-uniformly from σ/2 to 2 σ; a second channel holds it over σ.
        boundary: `periodic` or `reflective`.
    """

    name: ClassVar[str] = "blur"
    kind: ClassVar[Kind] = "cell_values"
    isolates: ClassVar[str] = "diffusion and its boundary; per image: a width that depends on the input"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"sigma": 1.0},
        {"sigma": 2.0},
        {"sigma": 2.0, "anisotropy": 4.0, "boundary": "reflective"},
        {"sigma": 2.0, "per_image": True},
        {"sigma": 2.0, "anisotropy": 4.0, "boundary": "reflective", "per_image": True},
    )

    sigma: float = 1.0
    anisotropy: float = 1.0
    per_image: bool = False
    boundary: str = "periodic"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.sigma", self.sigma, least=0.1, most=self.grid / 2)
        check_number("probe.anisotropy", self.anisotropy, least=0.1, most=10)
        check_choice("probe.boundary", self.boundary, BOUNDARIES)

    @property
    def channels(self) -> int:
        return 2 if self.per_image else 1

    def draw(self, rng: np.random.Generator) -> Sample:
        field = noise(rng, self.grid, self.boundary)
        planes, ratio = [field], 1.0
        if self.per_image:
            ratio = float(2 ** rng.uniform(-1, 1))
            planes.append(np.full_like(field, ratio))
        target = self._blurred(field, ratio)
        return Sample(np.stack(planes).astype(np.float32), target[None].astype(np.float32))

    def solve(self, samples: Samples) -> Array:
        fields = samples.input.astype(np.float64)
        ratios = fields[:, 1, 0, 0] if self.per_image else np.ones(len(fields))
        return np.stack([self._blurred(field, ratio) for field, ratio in zip(fields[:, :1], ratios, strict=True)])

    def _blurred(self, field: Field, ratio: float) -> Field:
        rows, columns = (ratio * self.sigma * self.anisotropy**power for power in (0.5, -0.5))
        return filtered(field, gaussian(rows, columns), self.boundary)


@dataclass(frozen=True, kw_only=True)
class Deblur(Probe):
    """The field x behind G x + noise, x band-limited, G a Gaussian blur, on a torus.

    The oracle is Wiener's filter S G / (G² S + ς²), the best answer there is, since everything is Gaussian; S is the
    spectrum of x. Its expected error is the mean over all waves of S ς² / (G² S + ς²). Chance is the variance of x, 1.

    Attributes:
        sigma: standard deviation of the blur in pixels.
        noise: standard deviation ς of the white noise.
    """

    name: ClassVar[str] = "deblur"
    kind: ClassVar[Kind] = "cell_values"
    isolates: ClassVar[str] = "kernels of both signs: one positive average cannot sharpen"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"sigma": 0.8, "noise": 0.05},
        {"sigma": 1.2, "noise": 0.05},
        {"sigma": 1.6, "noise": 0.02},
        {"sigma": 2.0, "noise": 0.002},
    )

    sigma: float = 1.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.sigma", self.sigma, least=0.1, most=self.grid / 2)
        check_number("probe.noise", self.noise, least=1e-3, most=10)

    @property
    def exact(self) -> bool:
        return False

    @property
    def wiener(self) -> Symbol:
        """The symbol of the oracle."""
        blur, spectrum = gaussian(self.sigma, self.sigma), self._spectrum
        return lambda rows, columns: (
            spectrum(rows, columns)
            * blur(rows, columns)
            / (blur(rows, columns) ** 2 * spectrum(rows, columns) + self.noise**2)
        )

    @property
    def expected_error(self) -> float:
        """The expected error of the oracle."""
        blur, spectrum = gaussian(self.sigma, self.sigma), self._spectrum

        def left(rows: Field, columns: Field) -> Field:
            power = spectrum(rows, columns)
            return power * self.noise**2 / (blur(rows, columns) ** 2 * power + self.noise**2)

        return mean_factor(left, self.grid)

    def draw(self, rng: np.random.Generator) -> Sample:
        field = noise(rng, self.grid)
        given = filtered(field, gaussian(self.sigma, self.sigma))
        given += self.noise * rng.standard_normal(field.shape)
        return Sample(given[None].astype(np.float32), field[None].astype(np.float32))

    def solve(self, samples: Samples) -> Array:
        return filtered(samples.input.astype(np.float64), self.wiener)

    def _spectrum(self, rows: Field, columns: Field) -> Field:
        return in_band(rows, columns) / band_share(self.grid)
