"""SS2D, the cross-scan of VMamba (arXiv 2401.10166): four selective scans, along rows and columns and against them.

The shell `published` is the vanilla form (`forward_type="v0"`), `final` the last one (`v05_noz` with one state and a
convolution without bias) of `SS2D` in `classification/models/vmamba.py` at commit 2ed52ea of MzeroMiko/VMamba. With
copied weights, outputs and all gradients agree to 1e-15 for both (relative RMS, float64, 5 × 7 tokens, LayerNorm's eps
set to 1e-6).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.mixers.scan import FOURTH_DEGREE
from operators.mixers.scan.branch import ScanCore, check_orders
from operators.registry import register
from operators.shell.spec import ShellSpec

_VMAMBA = "MzeroMiko/VMamba README.md"


@register(
    MixerCard(
        name="ss2d",
        family="scan",
        title="Cross-scan (SS2D, VMamba)",
        source="arXiv 2401.10166, section 4.2; MzeroMiko/VMamba classification/models/vmamba.py at 2ed52ea",
        year=2024,
        equation="y = Σ_p S6_p(u) over p = rows, columns and both reversed, each with its own maps",
        code="MzeroMiko/VMamba at 2ed52ea: outputs and gradients within 1e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={
            "published": ShellSpec(expand=2, conv=3, norm="layer"),
            "final": ShellSpec(expand=2, gate="none", conv=3, conv_bias=False, norm="layer"),
        },
        preset_params={"final": {"state_dim": 1}},
        exempt=dict.fromkeys(("extreme_inputs[published]", "extreme_inputs[final]"), FOURTH_DEGREE),
        published=(
            Published("VMamba-T (vanilla)", "ImageNet-1k top-1 %, 224 px", 82.2, _VMAMBA),
            Published("VMamba-S (vanilla)", "ImageNet-1k top-1 %, 224 px", 83.5, _VMAMBA),
            Published("VMamba-B (vanilla)", "ImageNet-1k top-1 %, 224 px", 83.7, _VMAMBA),
            Published("VMamba-T[s2l5]", "ImageNet-1k top-1 %, 224 px", 82.5, _VMAMBA),
            Published("VMamba-S[s2l15]", "ImageNet-1k top-1 %, 224 px", 83.6, _VMAMBA),
            Published("VMamba-B[s2l15]", "ImageNet-1k top-1 %, 224 px", 83.9, _VMAMBA),
        ),
    )
)
class SS2D(ScanCore):
    """The sum of selective scans of the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        orders: the scan orders (`operators.scan.orders`). VMamba's ablations: `[row, row, row, row]` (unidirectional)
            and `[row, row_r, row, row_r]` (bidirectional).
        state_dim: states S per channel; None for 16, or for 1 in the shell `final`.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.

    Raises:
        InputError: an unknown order or none at all, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "col", "row_r", "col_r"),
        state_dim: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(
            site,
            backend=backend,
            along=check_orders("mixer.orders", orders),
            state_dim=16 if state_dim is None else state_dim,
            rank=rank,
        )

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        return self.scans(u)
