"""Feature maps φ ≥ 0 of linear attention, acting on each number alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor


def elu_plus_one(x: Tensor) -> Tensor:
    """ELU(x) + 1: x + 1 above zero and e^x below (arXiv 2006.16236, equation 7).

    Without the difference e^x − 1, in which small values of e^x would lose their digits.
    """
    return x.clamp(max=0).exp() + F.relu(x)


FEATURE_MAPS: Mapping[str, Callable[[Tensor], Tensor]] = {"elu": elu_plus_one, "relu": F.relu}
"""By name; `elu` stands for ELU + 1."""
