"""Class accuracy of conditional samples, by a classifier that has seen real training images only.

The classifier is a small convolutional network: the same for every arm, and none of them. It is trained once per data
set, a fixed number of steps, and kept; its accuracy on real held-out images is the ceiling to read the samples' by.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.errors import InputError
from tasks.data import ImageData, keyed
from tasks.measures import pixels
from tasks.measures.kept import kept

VERSION = "1"
"""Changes whenever the trained weights would: it is part of the key under which they are kept."""
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 700, 128, 5e-3, 0.05
SIDE = 32
_LAYERS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1))
_CHUNK = 256


class Judge(nn.Module):
    """Logits (B, num_classes) of images (B, channels, H, W) in [-1, 1], larger ones reduced to 32 pixels a side."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.channels, self.num_classes = channels, num_classes
        layers: list[nn.Module] = []
        width = channels
        for out, stride in _LAYERS:
            layers += [nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        size = [min(side, SIDE) for side in images.shape[-2:]]
        if list(images.shape[-2:]) != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self.net(images)

    @torch.no_grad()
    def correct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Which images are taken for their class: bool (N,).

        Args:
            images: uint8 (N, channels, H, W).
            labels: int64 (N,), in [0, num_classes).

        Raises:
            InputError: other channels, labels of other classes, or not one for each image.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise InputError(f"samples of shape {tuple(images.shape)}: the judge knows {self.channels} channel(s)")
        if labels.shape != (len(images),):
            raise InputError(f"labels of shape {tuple(labels.shape)} for {len(images)} samples: one each is needed")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise InputError(f"labels must be in 0 … {self.num_classes - 1}, the classes of the data set")
        with torch.autocast(images.device.type, enabled=False):
            guesses = [self(pixels.signed(chunk)).argmax(1) for chunk in images.split(_CHUNK)]
        return torch.cat(guesses) == labels.to(images.device)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images that are taken for their class; arguments as for `correct`."""
        return self.correct(images, labels).double().mean().item()


def load(data: ImageData) -> Judge:
    """The judge of a data set, in evaluation mode on the CPU: trained on its train split, or from the cache.

    Training takes about a minute of one CPU core, and depends on the images, the resolution and `VERSION` alone: not
    on the run's seed or the state of any global generator. Another number of threads may change the last bits.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.default_generator.manual_seed(0)
        model = Judge(data.channels, data.num_classes)
        state = model.state_dict()
        size = sum(value.numel() for value in state.values())
        key = [part.encode() for part in (VERSION, data.fingerprint, str(data.image_size), str(data.num_classes))]
        flat = kept("judge", key, (size,), lambda: _trained(model, data))
        parts = flat.split([value.numel() for value in state.values()])
        model.load_state_dict({name: part.view_as(state[name]) for name, part in zip(state, parts, strict=True)})
    return model.requires_grad_(False).eval()


@torch.enable_grad()
def _trained(model: Judge, data: ImageData) -> Tensor:
    """Train; all numbers of its state in one float32 vector."""
    images = pixels.real(data, "train")
    labels = torch.from_numpy(data.whole.train.labels)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    model.train()
    with torch.autocast("cpu", enabled=False):
        for chosen in _batches(len(images)):
            loss = F.cross_entropy(model(pixels.signed(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return torch.cat([value.detach().float().flatten() for value in model.state_dict().values()])


def _batches(count: int) -> list[Tensor]:
    """Positions for each step: the images in a new order every time they have all been seen."""
    epochs = -(-STEPS * BATCH // count)
    order = np.concatenate([keyed.permutation(0, epoch, count, "judge") for epoch in range(epochs)])
    return list(torch.from_numpy(order[: STEPS * BATCH]).split(BATCH))
