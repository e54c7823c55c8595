"""All measures of a set of samples, batch by batch or at once."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import MeanMetric, SumMetric

from operators.errors import InputError, check_choice
from tasks.data import ImageData
from tasks.measures import judge, networks, pixels
from tasks.measures.frechet import FrechetDistance, Gaussian, doubt
from tasks.measures.kept import kept
from tasks.measures.kid import KernelDistance, kernel_distance
from tasks.measures.networks import FeatureNetwork


def features(network: FeatureNetwork, data: ImageData, split: pixels.Split, first: int | None = None) -> Tensor:
    """Features float32 (N, F) of real images, see `pixels.stream`; kept by what identifies them and the network."""
    device = next(network.parameters()).device
    count, identity, chunks = pixels.stream(data, split, first)

    def compute() -> Tensor:
        return torch.cat([network(pixels.signed(chunk).to(device)).cpu() for chunk in chunks])

    return kept("features", [network.version.encode(), *identity], (count, network.num_features), compute)


class Evaluator:
    """Measures samples against the real images of a held-out split.

    The reference is a split that the generator was not trained on, so memorising does not pay. The *floor* beside
    each distance is what real images would score in the samples' place: as many train images as there are samples,
    drawn in an order that is the same for every run (all of them where the split has fewer; `floor_n` says how many).
    No sampler can be expected below it, and it falls as N grows: a distance means nothing without its N and floor.

    Building one trains the judge and computes the reference's features unless the cache holds them: let one process
    per machine do so first. `update` and `compute` then work on any number of devices. It is no module, so that no
    checkpoint or optimiser of a module that holds it sees the networks inside.

    Args:
        data: the data set that the samples imitate.
        network: one of `networks.names()`; None leaves the distances out.
        weights: see `networks.create`.
        split: val or test.
        conditional: whether samples come with labels, for the judge, who learns from images in memory only.
        device: where the networks run, and where samples are brought.

    Raises:
        InputError: an unknown name, a network that cannot be used here, or a judge of photographs.
    """

    def __init__(
        self,
        data: ImageData,
        network: str | None = "efficientnet_lite0",
        *,
        weights: str | Path | None = None,
        split: pixels.Split = "test",
        conditional: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        check_choice("split", split, ("val", "test"))
        self._data, self._shape = data, (data.channels, *data.image_size)
        self._floors: dict[int, dict[str, float]] = {}
        self._device = torch.device(device)
        self.count = SumMetric().to(device)
        self.network = None if network is None else networks.create(network, weights).to(device)
        self._reference_size = len(getattr(data.whole, split))
        if self.network is not None:
            reference = features(self.network, data, split)
            self.frechet = FrechetDistance(Gaussian.of(reference)).to(device)
            self.kernel = KernelDistance(reference).to(device)
        self.judge = judge.load(data) if conditional else None
        if self.judge is not None:
            self.judge.to(device)
            self.accuracy = MeanMetric().set_dtype(torch.float64).to(device)
            real = pixels.real(data, split)
            self._ceiling = self.judge.accuracy(real.to(device), torch.from_numpy(getattr(data.whole, split).labels))

    @torch.no_grad()
    def update(self, samples: Tensor, labels: Tensor | None = None) -> None:
        """Take in samples (B, C, H, W), uint8 or floating point in [-1, 1], and what classes (B,) they should show.

        Raises:
            InputError: another shape, type or range than the data set's, values that are not finite, or labels
                missing where the evaluator is conditional, or given where it is not.
        """
        images = pixels.quantised(samples).to(self._device)
        if tuple(images.shape[1:]) != self._shape:
            raise InputError(f"samples of shape {tuple(samples.shape)}: {self._data.name} has images of {self._shape}")
        if (labels is None) == (self.judge is not None):
            raise InputError("labels are needed if and only if the evaluator is conditional")
        if self.judge is not None and labels is not None:
            self.accuracy.update(self.judge.correct(images, labels).double())
        if self.network is not None:
            features = self.network(pixels.signed(images))
            self.frechet.update(features)
            self.kernel.update(features)
        self.count.update(len(images))

    def compute(self) -> dict[str, float]:
        """The measures of all samples since the last `reset`, over all devices.

        Returns:
            n, reference_n (numbers of images); `fd_<network>` (`fid`) with /floor and /floor_n; `kid_<network>`
            (`kid`) with /stderr and /floor; class_accuracy and, of the real images, class_accuracy/real.
        """
        n = int(self.count.compute())
        values: dict[str, float] = {"n": n, "reference_n": self._reference_size}
        if self.network is not None:
            fd, kid = self.network.frechet, self.network.kernel
            estimate, error = self.kernel.compute()
            values |= {fd: float(self.frechet.compute()), kid: float(estimate), f"{kid}/stderr": float(error)}
            values |= self._floor(self.network, n)
        if self.judge is not None:
            values |= {"class_accuracy": float(self.accuracy.compute()), "class_accuracy/real": self._ceiling}
        return values

    def doubt(self, n: int) -> str | None:
        """The reason why the distance of `n` samples is to be read with care, or None."""
        return None if self.network is None else doubt(n, self.network.num_features)

    def reset(self) -> None:
        """Forget the samples, keep what belongs to the real images."""
        for name in ("count", "frechet", "kernel", "accuracy"):
            if hasattr(self, name):
                getattr(self, name).reset()

    def _floor(self, network: FeatureNetwork, n: int) -> dict[str, float]:
        if n not in self._floors:
            real = features(network, self._data, "train", first=n)
            metric = FrechetDistance(self.frechet.reference, sync_on_compute=False)
            metric.update(real)
            kernel, _ = kernel_distance(real, self.kernel.reference)
            self._floors[n] = {
                f"{network.frechet}/floor": float(metric.compute()),
                f"{network.frechet}/floor_n": len(real),
                f"{network.kernel}/floor": float(kernel),
            }
        return self._floors[n]


def evaluate(
    samples: Tensor,
    labels: Tensor | None,
    data: ImageData,
    network: str | None = "efficientnet_lite0",
    *,
    weights: str | Path | None = None,
    split: pixels.Split = "test",
) -> dict[str, float]:
    """The measures of samples (N, C, H, W) with classes (N,), or None where they have none; see `Evaluator`."""
    evaluator = Evaluator(data, network, weights=weights, split=split, conditional=labels is not None)
    for first in range(0, len(samples), 256):
        chunk = slice(first, first + 256)
        evaluator.update(samples[chunk], None if labels is None else labels[chunk])
    return evaluator.compute()
