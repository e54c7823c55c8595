"""What a mixer costs for one image, by one rule for all of them.

1 MAC is two real floating-point operations. A complex FFT of n points counts as 5 n log2 n operations and a real one as
half of that. Element-wise work (gates, norms, softmax, building propagators from parameters) is not counted, as
everywhere in the literature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Cost of one mixer for one image.

    Attributes:
        projection_macs: multiply-accumulates of the maps that act on each token alone.
        mixing_macs: multiply-accumulates of whatever moves information between tokens.
        state_elements: numbers that one image's mixing state holds (keys and values, scan states, PDE fields): all
            that tokens beyond a fixed reach learn of one another passes through them.
        parameters: learnable numbers.
    """

    projection_macs: int = 0
    mixing_macs: int = 0
    state_elements: int = 0
    parameters: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.projection_macs + other.projection_macs,
            self.mixing_macs + other.mixing_macs,
            self.state_elements + other.state_elements,
            self.parameters + other.parameters,
        )

    @property
    def macs(self) -> int:
        """Projection and mixing together."""
        return self.projection_macs + self.mixing_macs


def fft_macs(points: int, *, real: bool = True) -> float:
    """MACs of one FFT over `points` samples (all transformed axes together)."""
    flops = 5 * points * math.log2(points) if points > 1 else 0.0
    return flops / 4 if real else flops / 2


def complex_product_macs(elements: int) -> int:
    """MACs of `elements` complex products (four multiplications and two additions each)."""
    return 3 * elements
