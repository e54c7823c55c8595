"""What time-invariant state spaces along orders of the grid share: convolutions with the kernels of their systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from operators.card import Site
from operators.cost import Cost, complex_product_macs, fft_macs
from operators.errors import InputError, check_choice
from operators.mixer import Core
from operators.mixers.scan.branch import check_orders
from operators.precision import full_precision, wide
from operators.runtime.kept import Kept, keep, may_keep
from operators.scan import orders as scan_orders
from operators.spectral.sequences import filter_sequences, respond_to_sequences


class System(nn.Module):
    """A time-invariant system of one input and one output for each channel, with one readout or two.

    Attributes:
        state_size: numbers that the state of a channel holds.
    """

    no_weight_decay: tuple[str, ...] = ()
    state_size: int

    def kernels(self, length: int) -> Tensor:
        """The responses (R, D, N) to a unit at the first token, in at least float32."""
        raise NotImplementedError

    def run(self, u: Tensor, readout: int) -> Tensor:
        """The definition: the outputs (B, N, D) for u (B, N, D), token by token."""
        raise NotImplementedError


class SequenceCore(Core):
    """Base of cores that average systems along orders of the grid, and add D u.

        y = D u + mean over orders of (k * u, and k' * u read backwards from the next token on)

    Args:
        site: where the core stands.
        backend: `fft`, `reference` (the recurrence, token by token), or `auto`.
        orders: names of the orders (`operators.scan.orders`), with a system each.
        bidirectional: whether each order is read from its end as well, by a second readout of the same system.
        make: makes a system of so many readouts.

    Raises:
        InputError: no order, an unknown one, or one with `_r` where both ways are read.
    """

    canonical: ClassVar[dict[str, str]] = {"backend": "fft"}

    def __init__(
        self,
        site: Site,
        *,
        backend: str,
        orders: Sequence[str],
        bidirectional: bool,
        make: Callable[[int], System],
    ) -> None:
        super().__init__(site, backend=backend)
        self.along = check_orders("mixer.orders", orders)
        check_choice("mixer.bidirectional", bidirectional, (True, False))
        if bidirectional and any(scan_orders.base(name)[1] for name in self.along):
            raise InputError(
                f"mixer.orders={list(self.along)} has an order with {scan_orders.REVERSED!r}, and both ways are read: "
                "leave it out, or set mixer.bidirectional=False"
            )
        self.bidirectional = bidirectional
        self.systems = nn.ModuleList(make(2 if bidirectional else 1) for _ in self.along)
        self.D = nn.Parameter(torch.randn(site.width))
        self.no_weight_decay = frozenset(
            f"systems.{i}.{name}" for i, system in enumerate(self._systems()) for name in system.no_weight_decay
        )
        self._kept: Kept | None = None

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        height, width = u.shape[1:3]
        with full_precision(u):
            field = u.to(wide(u.dtype))
            total = self.D.to(field.dtype) * field
            for base, mixed in self._mixed(field):
                total = total + scan_orders.scatter(mixed, base, height, width) / len(self.along)
            return total.to(u.dtype)

    def _mixed(self, field: Tensor) -> list[tuple[str, Tensor]]:
        """By order without `_r`, what its systems make of the field, (B, N, D)."""
        if self.backend != "reference":
            sequences = {base: scan_orders.gather(field, base) for base in self._bases()}
            length = field.shape[1] * field.shape[2]
            responses = self._served_responses(field, length)
            return [
                (base, filter_sequences(sequence, response))
                for (base, sequence), response in zip(sequences.items(), responses, strict=True)
            ]
        mixed = []
        for name, system in zip(self.along, self._systems(), strict=True):
            base, backwards = scan_orders.base(name)
            sequence = scan_orders.gather(field, base)
            if not backwards:
                mixed.append((base, system.run(sequence, 0)))
            if backwards or self.bidirectional:
                back = system.run(sequence.flip(1), int(self.bidirectional)).flip(1)
                later = torch.cat([back[:, 1:], torch.zeros_like(back[:, :1])], dim=1)
                mixed.append((base, later if self.bidirectional else back))
        return mixed

    def responses(self, length: int) -> tuple[Tensor, ...]:
        """For each order without `_r`, the response (D, N + 1) of all its kernels."""
        made: dict[str, Tensor] = {}
        for name, system in zip(self.along, self._systems(), strict=True):
            base, backwards = scan_orders.base(name)
            response = respond_to_sequences(*system.kernels(length))
            response = response.conj() if backwards else response  # a kernel that is turned round
            made[base] = made[base] + response if base in made else response
        return tuple(made.values())

    def _served_responses(self, field: Tensor, length: int) -> tuple[Tensor, ...]:
        """The responses; kept for the next call if nothing asks for a gradient, up to twice the size of the field."""
        if not may_keep(field):
            return self.responses(length)
        numbers = [parameter for system in self._systems() for parameter in system.parameters()]
        kept = self._kept
        if kept is not None and kept.serves(length, numbers):
            return kept.made
        made = self.responses(length)
        self._kept = keep(length, numbers, made, field)
        return made

    def core_cost(self, height: int, width: int) -> Cost:
        """Per channel and order two real transforms of 2 N numbers and a complex product; the state of both ways."""
        tokens, channels = height * width, self.site.width
        mixing = 2 * fft_macs(2 * tokens) + complex_product_macs(tokens + 1)
        ways = 2 if self.bidirectional else 1
        return Cost(
            mixing_macs=round(channels * len(self._bases()) * mixing),
            state_elements=channels * ways * sum(system.state_size for system in self._systems()),
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (orders, ways, D, N), by distance along the order; backwards, distances begin at 1 if both are."""
        length = u.shape[1] * u.shape[2]
        return {"kernel": torch.stack([system.kernels(length) for system in self._systems()])}

    def _bases(self) -> list[str]:
        return list(dict.fromkeys(scan_orders.base(name)[0] for name in self.along))

    def _systems(self) -> list[System]:
        return [system for system in self.systems if isinstance(system, System)]
