"""Gated DeltaProduct on a grid (arXiv 2502.10297): each token corrects the state several times.

    S ← a_t S,   then   S ← S + β_j k_j (v_j − Sᵀ k_j)ᵀ   for j = 1 … steps,   y_t = Sᵀ q_t

Each step has a key, a value and a strength of its own; the first value is the field u, the others are maps of x. The
state passes through a product of `steps` (generalised) Householder matrices, which reaches rotations once β may exceed
1. One step is `gated_deltanet`, or without the decay a `deltanet`.

With one order and copied weights the `published` shell makes this the authors' whole layer `GatedDeltaProduct` at
commit bc3b101d of fla-org/flash-linear-attention: as many parameters, outputs and all gradients within 4e-14
(relative RMS, float64, 75 tokens, two steps with decay and three without, with the repository's naive
recurrence in place of its kernels and our ε of 1e-6 in its norm). Width and gate are those of the models that the
authors trained (automl/DeltaProduct at 38cd4e4): values as wide as the model, no output gate.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.card import MixerCard, Site
from operators.errors import check_choice, check_number
from operators.mixers.delta.branch import DeltaCore
from operators.registry import register
from operators.shell.spec import ShellSpec


@register(
    MixerCard(
        name="deltaproduct",
        family="delta",
        title="Products of Householder steps (DeltaProduct)",
        source="arXiv 2502.10297; fla-org/flash-linear-attention fla/layers/gated_deltaproduct.py at bc3b101d",
        year=2025,
        equation="y = mean over orders of Sᵀq, S ← a S, then S ← S + β_j k_j (v_j − Sᵀk_j)ᵀ for j = 1 … steps, v_1 = u",
        code="fla-org/flash-linear-attention at bc3b101, whole layer: outputs and gradients within 4e-14 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="key_width",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(gate="none", norm_heads=True)},
        preset_params={"published": {"conv": 4}},
    )
)
class DeltaProduct(DeltaCore):
    """The mean of products of delta rules on the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        orders: scan orders (`operators.scan.orders`); the outputs of all are averaged.
        heads: heads; None for the divisor of D nearest to D/64. They share the field's D channels.
        key_width: channels of queries and keys per head; None for as many as values have.
        conv: width of a causal convolution with SiLU of queries, keys and values along each order; 0 for none; None for
            4 in the published shell and none in any other.
        steps: writes of each token, n_h of the paper.
        gated: whether the state decays, once per token.
        negative_eigenvalues: whether β reaches 2: a write may then turn what the state holds around (arXiv 2411.12537).

    Raises:
        InputError: an unknown order or none at all, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "row_r"),
        heads: int | None = None,
        key_width: int | None = None,
        conv: int | None = None,
        steps: int = 2,
        gated: bool = True,
        negative_eigenvalues: bool = True,
    ) -> None:
        check_number("mixer.steps", steps, least=1, most=16, integer=True)
        check_choice("mixer.gated", gated, (True, False))
        super().__init__(
            site,
            backend=backend,
            along=orders,
            heads=heads,
            key_width=key_width,
            conv=conv,
            negative_eigenvalues=negative_eigenvalues,
            writes=steps,
            decay="head" if gated else "none",
        )
