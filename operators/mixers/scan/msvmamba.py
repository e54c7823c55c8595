"""MS2D, the multi-scale 2-D scan of MSVMamba (arXiv 2405.14174): one scan of all tokens, three of a coarser field.

The `published` shell is `SS2D` of the released models (`sscore_type="multiscale_4scan_12"` with `ms_split=[1, 3]` and
`add_se`, `classification/models/vmamba.py`) at commit c394019 of YuHengsss/MSVMamba. That code lays the three coarse
sequences end to end and scans them as one with one set of maps (`shared`): a direction starts in the state where the
direction before it ended. The paper has three scans with maps of their own, which are the default of other shells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.initialisation import linear_init
from operators.mixers.scan.branch import ScanCore, seen_from, sum_of_scans
from operators.registry import register
from operators.scan import orders
from operators.shell.shell import EPS
from operators.shell.spec import ShellSpec

SIDES = (1, 3, 5, 7, 9, 11)
COARSE = ("row_r", "col", "col_r")
"""Orders of the coarse field, in which the released code lays them end to end."""
_MSVMAMBA = "YuHengsss/MSVMamba README.md"


@register(
    MixerCard(
        name="msvmamba",
        family="scan",
        title="Multi-scale 2-D scan (MS2D, MSVMamba)",
        source="arXiv 2405.14174 (MS2D); YuHengsss/MSVMamba classification/models/vmamba.py at c394019",
        year=2024,
        equation="y = S6(u) along rows + up(Σ_p S6_p(SiLU(DW(u)[::s, ::s]))) over p = rows reversed, columns both ways",
        code="YuHengsss/MSVMamba at c394019: outputs and gradients within 2e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, norm="none")},
        preset_params={
            "published": {"conv": 3, "shared": True, "branch_norm": True, "squeeze": 8, "state_dim": 1},
        },
        published=(
            Published("MSVMamba-Nano", "ImageNet-1k top-1 %, 224 px", 77.3, _MSVMAMBA),
            Published("MSVMamba-Micro", "ImageNet-1k top-1 %, 224 px", 79.8, _MSVMAMBA),
            Published("MSVMamba-Tiny", "ImageNet-1k top-1 %, 224 px", 82.8, _MSVMAMBA),
        ),
    )
)
class MSVMamba(ScanCore):
    """The sum of a row scan of the field u and of scans the other three ways of u at a coarser resolution.

    The coarse field is SiLU of a strided depthwise convolution of u; what is scanned of it comes back by bilinear
    interpolation. With a stride of 2 that is 1.75 scanned tokens for each token, where a cross-scan has 4.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        stride: how many times coarser the second field is, along each axis.
        coarse_conv: side of the strided convolution, odd.
        conv: side of a depthwise convolution with SiLU in front of the row scan, odd; 0 for none; None for 3 in the
            published shell and none in any other.
        shared: whether the coarse orders are one long sequence with one set of maps, as in the released code, and not
            three; None for True in the published shell.
        branch_norm: whether a LayerNorm, the same for all, is of each scan's output; None for True in the published
            shell.
        squeeze: how many times narrower the hidden layer of a squeeze-and-excitation of the output is; 0 for none;
            None for 8 in the published shell and none in any other.
        state_dim: states S per channel; None for 16, or for 1 in the published shell.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.

    Raises:
        InputError: a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        stride: int = 2,
        coarse_conv: int = 7,
        conv: int | None = None,
        shared: bool | None = None,
        branch_norm: bool | None = None,
        squeeze: int | None = None,
        state_dim: int | None = None,
        rank: int | None = None,
    ) -> None:
        check_number("mixer.stride", stride, least=1, most=16, integer=True)
        check_choice("mixer.coarse_conv", coarse_conv, SIDES)
        check_choice("mixer.conv", conv, (None, 0, *SIDES))
        check_choice("mixer.shared", shared, (None, True, False))
        check_choice("mixer.branch_norm", branch_norm, (None, True, False))
        if squeeze is not None:
            check_number("mixer.squeeze", squeeze, least=0, integer=True)
        super().__init__(
            site,
            backend=backend,
            along=("row", "row") if shared else ("row", *COARSE),  # one long sequence is read forwards
            state_dim=16 if state_dim is None else state_dim,
            rank=rank,
        )
        width = site.width
        self.stride, self.shared = stride, bool(shared)
        self.conv = nn.Conv2d(width, width, conv, padding="same", groups=width) if conv else None
        self.coarse_conv = nn.Conv2d(width, width, coarse_conv, stride, coarse_conv // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS) if branch_norm else None
        self.excitation: nn.ModuleList | None = None
        if squeeze:
            hidden = max(width // squeeze, 1)
            self.excitation = nn.ModuleList(
                [nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)]
            )
            for linear in self.excitation:
                assert isinstance(linear, nn.Linear)
                linear_init(linear)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        fine, coarse = self._fields(u)
        first, *others = self._branches()
        y = sum_of_scans(fine, ["row"], [first], self._normalised)
        if self.shared:
            scanned = self._apart(self._normalised(others[0](self._end_to_end(coarse))), *coarse.shape[1:3])
        else:
            scanned = sum_of_scans(coarse, COARSE, others, self._normalised)
        y = y + self._at_full_resolution(scanned, *u.shape[1:3])
        return self._excited(y)

    def _fields(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """What is scanned at full resolution (B, H, W, D) and at the coarse one (B, ⌈H/s⌉, ⌈W/s⌉, D)."""
        images = u.movedim(-1, 1)
        fine = u if self.conv is None else F.silu(self.conv(images)).movedim(1, -1)
        return fine, F.silu(self.coarse_conv(images)).movedim(1, -1)

    def _normalised(self, y: Tensor) -> Tensor:
        return y if self.norm is None else self.norm(y.to(self.norm.weight.dtype))

    @staticmethod
    def _end_to_end(coarse: Tensor) -> Tensor:
        """The three coarse orders as one sequence (B, 3 N, D)."""
        return torch.cat([orders.gather(coarse, name) for name in COARSE], dim=1)

    @staticmethod
    def _apart(sequence: Tensor, height: int, width: int) -> Tensor:
        """The sum (B, H, W, D) of the grids whose sequences `_end_to_end` joins."""
        row_r, col, col_r = sequence.chunk(3, dim=1)
        columns = orders.scatter(col + col_r.flip(1), "col", height, width)
        return orders.scatter(row_r, "row_r", height, width) + columns

    def _at_full_resolution(self, coarse: Tensor, height: int, width: int) -> Tensor:
        if self.stride == 1:
            return coarse
        images = F.interpolate(coarse.movedim(-1, 1), (height, width), mode="bilinear", align_corners=False)
        return images.movedim(1, -1)

    def _excited(self, y: Tensor) -> Tensor:
        """The field with each channel scaled by what its mean, and those of the others, ask for."""
        if self.excitation is None:
            return y
        narrow, wide = self.excitation
        return y * torch.sigmoid(wide(F.relu(narrow(y.mean((1, 2))))))[:, None, None]

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs (`Branch.cost`), one operation for each tap of each convolution, and the excitation."""
        tokens, coarse = height * width, -(-height // self.stride) * -(-width // self.stride)
        first, *others = self._branches()
        cost = sum((branch.cost(coarse * (3 if self.shared else 1)) for branch in others), first.cost(tokens))
        taps = coarse * self.coarse_conv.weight.numel()
        taps += 0 if self.conv is None else tokens * self.conv.weight.numel()
        if self.excitation is None:
            return cost + Cost(mixing_macs=taps)
        maps = sum(parameter.numel() for parameter in self.excitation.parameters())
        return cost + Cost(mixing_macs=taps + maps, state_elements=self.site.width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` (B, 1, H, W), the row scan's step sizes averaged over channels, and `influence` (B, 1, H, W), how much

        each token counts in it at the grid's centre (`Branch.influence`); `coarse_step` and `coarse_influence` of the
        three coarse orders, (B, 3, ⌈H/s⌉, ⌈W/s⌉). In one long sequence, what counts is what an order reads of itself.
        """
        fine, coarse = self._fields(u)
        first, *others = self._branches()
        full = seen_from(fine, "row", first)
        if self.shared:
            parts = self._seen_end_to_end(coarse)
        else:
            parts = [seen_from(coarse, name, branch) for name, branch in zip(COARSE, others, strict=True)]
        found = {"step": full[0][:, None], "influence": full[1][:, None]}
        for index, key in enumerate(("coarse_step", "coarse_influence")):
            found[key] = torch.stack([part[index] for part in parts], dim=1)
        return found

    def _seen_end_to_end(self, coarse: Tensor) -> list[tuple[Tensor, Tensor]]:
        height, width = coarse.shape[1:3]
        centre, tokens = height // 2 * width + width // 2, height * width
        sequence, parts = self._end_to_end(coarse), []
        for index, name in enumerate(COARSE):
            token = index * tokens + int(orders.inverse(name, height, width)[centre])
            steps, influence = self._branches()[1].influence(sequence, token)
            own = slice(index * tokens, (index + 1) * tokens)
            step, count = (
                orders.scatter(each[:, own, None], name, height, width)[..., 0] for each in (steps.mean(-1), influence)
            )
            parts.append((step, count))
        return parts
