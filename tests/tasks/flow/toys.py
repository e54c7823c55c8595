"""Flows whose optimal predictions are known in closed form: mixtures of Gaussians."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tasks.flow.paths import Path
from tasks.flow.prediction import Model


class Mixture:
    """Equal shares of N(means[k], std² 1), means (K, D)."""

    def __init__(self, means: Tensor, std: float) -> None:
        self.means, self.std = means.double(), std

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Data and noise, each (n, D)."""
        which = torch.randint(len(self.means), (n,), generator=generator)
        centre = self.means[which]
        noise = torch.randn(2, *centre.shape, generator=generator, dtype=torch.float64)
        return centre + self.std * noise[0], noise[1]

    def optimum(self, path: Path, kind: str, x_t: Tensor, t: Tensor) -> Tensor:
        """The conditional mean of data, noise or velocity, given x_t (B, D) at times t (B,).

        Given component k, (data, noise, x_t) are jointly normal, and x_t has variance α² std² + σ².
        """
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        variance = alpha**2 * self.std**2 + sigma**2
        offset = x_t[:, None] - alpha[..., None] * self.means  # (B, K, D)
        share = (-offset.square().sum(2) / (2 * variance)).softmax(1)[..., None]
        data = (share * (self.means + (alpha * self.std**2 / variance)[..., None] * offset)).sum(1)
        noise = (share * (sigma / variance)[..., None] * offset).sum(1)
        if kind == "velocity":
            return path.alpha_rate(t)[:, None] * data + path.sigma_rate(t)[:, None] * noise
        return data if kind == "data" else noise

    def model(self, path: Path, kind: str) -> Model:
        """The perfectly trained network."""
        return lambda x_t, t, label: self.optimum(path, kind, x_t, t)


def two_gaussians(dim: int) -> Mixture:
    mean = torch.ones(1, dim) / math.sqrt(dim)
    return Mixture(torch.cat([mean, -mean]), std=0.3)


def ring(n: int = 24) -> Mixture:
    """A circle of radius 1, blurred."""
    angle = torch.arange(n) * 2 * math.pi / n
    return Mixture(torch.stack([angle.cos(), angle.sin()], 1), std=0.25)


def gaussian(mean: float, std: float, dim: int = 1) -> Mixture:
    return Mixture(torch.full((1, dim), mean), std)


class Network(nn.Module):
    """A small MLP of x_t and time: an offset and a factor of x_t; labels are ignored."""

    def __init__(self, dim: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[nn.Linear(dim + 5, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * dim)]
        )

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        waves = [wave(k * math.pi * t) for k in (1, 2) for wave in (torch.cos, torch.sin)]
        offset, factor = self.layers(torch.cat([x_t, torch.stack([t, *waves], 1)], 1)).chunk(2, 1)
        return offset + factor * x_t
