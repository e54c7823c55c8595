"""The mixer `s4d`: diagonal state spaces along orders of the grid.

For each channel, with S complex states, each of which stands for itself and its conjugate (arXiv 2206.11893)

    x_t = w x_{t-1} + b u_t,   y_t = 2 Re Σ_n C_n x_t[n] + D u_t,   A_n = −exp(A_log) + i A_imag,   Δ = exp(log_step)

w and b are those of A at the step Δ (`operators.lti.discretisation`), with B = 1: C stands for the product of both.

The published layer is this core, GELU, a map to 2C channels and GLU, which no switches of the shell say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.errors import InputError, check_choice, check_number
from operators.lti import diagonal, hippo
from operators.lti.discretisation import RULES, Discrete, discretise
from operators.mixers.statespace.sequence import SequenceCore, System
from operators.precision import wide
from operators.registry import register


class DiagonalSystem(System):
    """A diagonal system for each channel, with R readouts.

    Args:
        width: channels D.
        readouts: how many readouts R.
        state_dim: complex states S.
        start: one of `operators.lti.hippo.STARTS`.
        rule: one of `operators.lti.discretisation.RULES`.
        n_ssm: channels share so many matrices A, in turn; None for one each.
        steps: least and greatest step at the start, spread evenly in logarithm.
        bandlimit: states are silent whose frequency, as a share of the highest that tokens can show, is not below this;
            None: none is.
    """

    no_weight_decay = ("A_log", "A_imag", "log_step")

    def __init__(
        self,
        width: int,
        readouts: int,
        *,
        state_dim: int,
        start: str,
        rule: str,
        n_ssm: int | None = None,
        steps: Sequence[float],
        bandlimit: float | None = None,
    ) -> None:
        super().__init__()
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        check_choice("mixer.start", start, hippo.STARTS)
        check_choice("mixer.rule", rule, RULES)
        own = width if n_ssm is None else n_ssm
        check_number("mixer.n_ssm", own, least=1, most=width, integer=True)
        if width % own:
            raise InputError(f"mixer.n_ssm={own} must divide the width {width}")
        if bandlimit is not None:
            check_number("mixer.bandlimit", bandlimit, least=0)
        self.width, self.rule, self.state_size, self.bandlimit = width, rule, 2 * state_dim, bandlimit
        self.log_step = nn.Parameter(torch.empty(width).uniform_(*map(math.log, check_steps(steps))))
        self.A_log, self.A_imag = (nn.Parameter(torch.empty(own, state_dim)) for _ in range(2))
        begin = hippo.start(start, state_dim)
        with torch.no_grad():
            self.A_log.copy_(begin.decay.log())
            self.A_imag.copy_(begin.frequency)
            self.C = nn.Parameter(_readouts(begin, readouts, width))

    def discrete(self) -> tuple[Discrete, Tensor]:
        """The recurrence (D, S) and its readouts (R, D, S, 2), in at least float32."""
        dtype = wide(self.C.dtype)
        decay, frequency = self.A_log.to(dtype).exp(), self.A_imag.to(dtype)
        copies = self.width // len(decay)
        decay, frequency = decay.repeat(copies, 1), frequency.repeat(copies, 1)
        step, readout = self.log_step.to(dtype).exp()[:, None], self.C.to(dtype)
        if self.bandlimit is not None:
            readout = readout * (step * frequency.abs() < self.bandlimit * math.pi)[..., None]
        return discretise(decay, frequency, step, self.rule), readout

    def kernels(self, length: int) -> Tensor:
        return diagonal.kernel(*self.discrete(), length)

    def run(self, u: Tensor, readout: int) -> Tensor:
        system, readouts = self.discrete()
        return diagonal.run(system, readouts[readout], u)


def check_steps(steps: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest step. Raises `InputError` unless they are two ascending positive numbers."""
    if not isinstance(steps, Sequence) or isinstance(steps, str) or len(steps) != 2:
        raise InputError(f"mixer.steps={steps!r} must be two numbers: the least and the greatest step")
    low, high = steps
    check_number("mixer.steps[0]", low, least=1e-6, most=1e3)
    check_number("mixer.steps[1]", high, least=low, most=1e3)
    return low, high


def _readouts(begin: hippo.DiagonalStart, readouts: int, width: int) -> Tensor:
    """C times B (R, D, S, 2): complex normal, or a normal readout of the states of HiPPO in the eigenvectors."""
    if begin.vectors is None:
        drawn = torch.randn(readouts, width, len(begin.weight), 2) / math.sqrt(2)
        complex_drawn = torch.view_as_complex(drawn.to(begin.weight.real.dtype))
    else:
        drawn = torch.randn(readouts, width, len(begin.vectors)).to(begin.decay.dtype)
        vectors = torch.view_as_real(begin.vectors).to(drawn.device)
        complex_drawn = torch.view_as_complex(torch.einsum("rdn,nsp->rdsp", drawn, vectors).contiguous())
    product = complex_drawn * begin.weight.to(complex_drawn.device)
    return torch.view_as_real(product).to(torch.get_default_dtype())


@register(
    MixerCard(
        name="s4d",
        family="statespace",
        title="Diagonal state spaces (S4D)",
        source="arXiv 2206.11893; state-spaces/s4 models/s4/s4d.py at e757cef; `ptd` by arXiv 2310.01698",
        year=2022,
        equation="x_t = exp(Δ A) x_{t-1} + A⁻¹ (exp(Δ A) − 1) u_t, y_t = 2 Re C x_t + D u_t, both ways along orders",
        code="state-spaces/s4 at e757cef, s4d.py and s4.py: outputs and gradients within 2e-14 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fp32_core=True,
        state_param="state_dim",
        backends=("fft", "reference"),
        published=(
            Published("S4D", "Long Range Arena, mean accuracy %", 85.0, "arXiv 2206.11893, abstract"),
            Published(
                "S4D, 200K parameters", "sequential CIFAR-10 accuracy %", 88.0, "state-spaces/s4 models/s4/README.md"
            ),
        ),
    )
)
class S4D(SequenceCore):
    """The mean of diagonal state spaces of the field u along orders and against them.

    Args:
        site: where the core stands.
        backend: `fft`, `reference` (the recurrence, token by token), or `auto`.
        orders: the orders (`operators.scan.orders`), each with a state space of its own.
        bidirectional: whether each order is read from its end as well, with a readout C of its own, from the next token
            on. False, with one order, is the causal layer.
        state_dim: complex states S per channel and order; half of the papers' N, which counts conjugates.
        start: the diagonal matrix A at the start: `lin`, `inv`, `legs`, `real` or `ptd` (`operators.lti.hippo.start`).
        rule: of the discretisation, `zoh` or `bilinear`.
        n_ssm: channels share so many matrices A, in turn; None for one each.
        steps: least and greatest step Δ at the start.

    Raises:
        InputError: an unknown order, start or rule, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row",),
        bidirectional: bool = True,
        state_dim: int = 32,
        start: str = "lin",
        rule: str = "zoh",
        n_ssm: int | None = None,
        steps: Sequence[float] = (1e-3, 1e-1),
    ) -> None:
        def make(readouts: int) -> DiagonalSystem:
            return DiagonalSystem(
                site.width, readouts, state_dim=state_dim, start=start, rule=rule, n_ssm=n_ssm, steps=steps
            )

        super().__init__(site, backend=backend, orders=orders, bidirectional=bidirectional, make=make)
