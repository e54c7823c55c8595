"""Kimi Delta Attention on a grid (arXiv 2510.26692): the gated delta rule with a decay for each key channel.

    S_t = (I − β_t k_t k_tᵀ) diag(a_t) S_{t−1} + β_t k_t v_tᵀ,   a_t = exp(−exp(A_log) softplus(W_a x_t + b)) ∈ R^K

W_a is a product of two maps with a head's width in between; exp(A_log) is one number per head. All else is as in
`gated_deltanet`, which it is where the channels of a head decay alike.

With one order and copied weights the `published` shell makes this the authors' whole layer `KimiDeltaAttention` at
commit bc3b101d of fla-org/flash-linear-attention, but for the bias that this layer, unlike the paper, gives its output
gate (D parameters): outputs and all gradients agree to 4e-15 (relative RMS, float64, 75 tokens, that
bias at zero, with the repository's naive recurrence in place of its kernels and our ε of 1e-6 in its norm); the core
alone also with β up to 2. The gate's rank is theirs, a head's width, where heads are 64 wide.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.card import MixerCard, Site
from operators.mixers.delta.branch import DeltaCore
from operators.registry import register
from operators.shell.spec import ShellSpec


@register(
    MixerCard(
        name="kda",
        family="delta",
        title="Delta rule with decay per channel (KDA)",
        source="arXiv 2510.26692; fla-org/flash-linear-attention fla/layers/kda.py at bc3b101d",
        year=2025,
        equation="y = mean over orders of Sᵀq, S ← diag(a) S, S ← S + β k (v − Sᵀk)ᵀ, a = exp(−A softplus(W x + b))",
        code="fla-org/flash-linear-attention at bc3b101, whole layer but the gate's bias: within 4e-15 (RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="key_width",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(gate="sigmoid", gate_rank=64, norm_heads=True)},
        preset_params={"published": {"conv": 4}},
    )
)
class KimiDeltaAttention(DeltaCore):
    """The mean of delta rules with decays per channel on the field u in several orders, each with maps of its own.

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
            decay="channel",
            interval=(1.0, 16.0),
        )
