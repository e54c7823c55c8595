"""The base of cores whose recurrences have kernels beside the chunked form."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.card import Site
from operators.linear.choice import availability, serving
from operators.linear.fla import Problem
from operators.mixer import Core
from operators.precision import call_type


class RecurrentCore(Core):
    """A subclass says what recurs, in `problem`, and calls `note` in its forward pass.

    Args:
        site: where the core stands.
        backend: one of `operators.linear.choice.BACKENDS`, or `auto`.
    """

    def __init__(self, site: Site, *, backend: str) -> None:
        super().__init__(site, backend=backend)
        self._last_dtype: torch.dtype | None = None

    @property
    def problem(self) -> Problem:
        """What recurs along each order."""
        raise NotImplementedError

    def note(self, x: Tensor) -> torch.dtype:
        """The type of a call with x, for `backend` to speak of."""
        self._last_dtype = call_type(x)
        return self._last_dtype

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend None, or the reason why it cannot serve on this machine."""
        return availability()

    @property
    def backend(self) -> str:
        """The backend that serves on the parameters' device, in the type of the last call.

        Before the first call the parameters' type stands in; under mixed precision that is not the type of the call.
        """
        if self.requested_backend != "auto":
            return self.requested_backend
        weight = next(self.parameters())
        return serving("auto", self.problem, weight.device, self._last_dtype or weight.dtype)
