"""Gated delta rule on a grid (Gated DeltaNet, arXiv 2412.06464): the state fades before each token corrects it.

    S_t = a_t (I − β_t k_t k_tᵀ) S_{t−1} + β_t k_t v_tᵀ,   y_t = S_tᵀ q_t,   a = exp(−exp(A_log) softplus(W_a x + b))

with one decay a per head; all else as in `deltanet`, which it is where a = 1.

With one order and copied weights the `published` shell makes this the authors' whole layer `GatedDeltaNet` at commit
bc3b101d of fla-org/flash-linear-attention: as many parameters, outputs and all gradients within 7e-15 (relative RMS,
float64, 75 tokens, with the repository's naive recurrence in place of its kernels and our ε of 1e-6 in
its norm); the core alone also with β up to 2. It has the shares that the authors prescribe: values 1.5 times as wide as
the model, keys half as wide as values.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.card import MixerCard, Site
from operators.errors import check_number
from operators.mixers.delta.branch import DeltaCore
from operators.registry import register
from operators.shell.spec import ShellSpec


@register(
    MixerCard(
        name="gated_deltanet",
        family="delta",
        title="Gated delta rule (Gated DeltaNet)",
        source="arXiv 2412.06464; fla-org/flash-linear-attention fla/layers/gated_deltanet.py at bc3b101d",
        year=2024,
        equation="y = mean over orders of Sᵀq, S ← a S, S ← S + β k (v − Sᵀk)ᵀ, a = exp(−A softplus(W x + b)) per head",
        code="fla-org/flash-linear-attention at bc3b101, whole layer: outputs and gradients within 7e-15 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="key_width",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(expand=1.5, norm_heads=True)},
        preset_params={"published": {"conv": 4, "key_ratio": 0.5}},
    )
)
class GatedDeltaNet(DeltaCore):
    """The mean of gated delta rules on the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        orders: scan orders (`operators.scan.orders`); the outputs of all are averaged.
        heads: heads; None for the divisor of D nearest to D/64. They share the field's D channels.
        key_width: channels of queries and keys per head; None for `key_ratio` times those of values.
        key_ratio: channels of queries and keys over those of values, where `key_width` is None; None for 0.5 in the
            published shell and 1 in any other.
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
        key_ratio: float | None = None,
        conv: int | None = None,
        negative_eigenvalues: bool = False,
    ) -> None:
        if key_ratio is not None:
            check_number("mixer.key_ratio", key_ratio, least=1e-3, most=64)
        super().__init__(
            site,
            backend=backend,
            along=orders,
            heads=heads,
            key_width=key_width,
            key_ratio=1.0 if key_ratio is None else key_ratio,
            conv=conv,
            negative_eigenvalues=negative_eigenvalues,
            decay="head",
        )
