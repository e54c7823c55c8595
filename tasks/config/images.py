"""What a model and its task have to know of the images that they are made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.data import KeyedData


@dataclass(frozen=True)
class Images:
    """A checkpoint's `data`.

    Attributes:
        num_classes, channels, image_size (H, W): of the data set.
        mean, std: of each channel, by which the images have been normalised.
        input: shape (C, H, W) of what the model takes of an image: itself, or its latents.
    """

    num_classes: int
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input: tuple[int, int, int]

    @classmethod
    def of(cls, data: KeyedData, shape: tuple[int, int, int]) -> Images:
        """Of the data set `data`, of whose images the model takes that `shape`."""
        return cls(data.num_classes, data.channels, data.image_size, tuple(data.mean), tuple(data.std), shape)

    @classmethod
    def recorded(cls, entry: Mapping[str, Any]) -> Images:
        """As `record` has given them."""
        height, width = entry["image_size"]
        channels, rows, columns = entry["input"]
        return cls(
            num_classes=entry["num_classes"],
            channels=entry["channels"],
            image_size=(height, width),
            mean=tuple(entry["mean"]),
            std=tuple(entry["std"]),
            input=(channels, rows, columns),
        )

    def record(self) -> dict[str, Any]:
        """The same facts in plain containers, as a checkpoint holds them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
