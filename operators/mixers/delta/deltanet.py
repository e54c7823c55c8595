"""Delta rule on a grid (DeltaNet, arXiv 2406.06484): each token corrects what the state holds under its key.

In every order, with queries, keys and write strengths of maps of its own (`operators.mixers.delta.branch`),

    S_t = (I − β_t k_t k_tᵀ) S_{t−1} + β_t k_t v_tᵀ,   y_t = S_tᵀ q_t,   v = u

and the orders' outputs are averaged: by default rows from both ends, as Vim does with Mamba. Unit keys and β = 1 make
S_t hand back the newest value written under a key; β = 0 leaves the state alone.

With one order and copied weights the `published` shell makes this the authors' whole layer `DeltaNet` at commit
bc3b101d of fla-org/flash-linear-attention: as many parameters, outputs and all gradients within 1e-15 (relative RMS,
float64, 75 tokens, with the repository's naive recurrence in place of its kernels and our ε of 1e-6 in
its norm); the core alone also with β up to 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.card import MixerCard, Site
from operators.mixers.delta.branch import DeltaCore
from operators.registry import register
from operators.shell.spec import ShellSpec


@register(
    MixerCard(
        name="deltanet",
        family="delta",
        title="Delta rule (DeltaNet)",
        source="arXiv 2406.06484; fla-org/flash-linear-attention fla/layers/delta_net.py at bc3b101d",
        year=2024,
        equation="y = mean over orders of Sᵀq, S ← S + β k (v − Sᵀk)ᵀ, v = u, unit keys, β = σ(W x)",
        code="fla-org/flash-linear-attention at bc3b101, whole layer: outputs and gradients within 1e-15 (float64)",
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
class DeltaNet(DeltaCore):
    """The mean of delta rules on the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        orders: scan orders (`operators.scan.orders`); the outputs of all are averaged.
        heads: heads; None for the divisor of D nearest to D/64. They share the field's D channels.
        key_width: channels of queries and keys per head; None for as many as values have.
        conv: width of a causal convolution with SiLU of queries, keys and values along each order; 0 for none; None for
            4 in the published shell and none in any other.
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
        negative_eigenvalues: bool = False,
    ) -> None:
        super().__init__(
            site,
            backend=backend,
            along=orders,
            heads=heads,
            key_width=key_width,
            conv=conv,
            negative_eigenvalues=negative_eigenvalues,
        )
