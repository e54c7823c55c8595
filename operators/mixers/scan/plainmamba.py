"""PlainMamba (arXiv 2403.17695): snakes along rows and columns, both ways, that know which way they go.

The `published` shell is `PlainMamba2D` of `mmcls/plain_mamba_dev/models/plain_mamba/plain_mamba_layer.py` at commit
0975a1d of ChenhongyiYang/PlainMamba. That code brings the tokens into the order of each snake and leaves their steps
and maps row by row, so that a token is scanned with the maps of another one (`aligned=False`). The paper pairs each
token with its own maps, which is the default of other shells. That code also adds the bias of the step twice: with its
weights, `step.bias` is twice the authors' `dt_proj.bias`. Here steps start as in Mamba, and not at about their squares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice
from operators.initialisation import truncated_normal_
from operators.mixers.scan.branch import ScanCore
from operators.precision import wide
from operators.registry import register
from operators.scan import orders
from operators.shell.spec import ShellSpec

SNAKES = ("snake_row", "snake_col")
"""Each is read both ways."""

_PLAINMAMBA = "arXiv 2403.17695, as later papers cite it"
Maps = tuple[Tensor, Tensor, Tensor]


@register(
    MixerCard(
        name="plainmamba",
        family="scan",
        title="Direction-aware snake scans (PlainMamba)",
        source="arXiv 2403.17695; ChenhongyiYang/PlainMamba plain_mamba_layer.py at 0975a1d",
        year=2024,
        equation="y = Σ_p S6_p(u), p = two snakes both ways, with the same maps, B_t + β[direction of the step to t]",
        code="ChenhongyiYang/PlainMamba at 0975a1d: outputs and input gradients within 6e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, conv=7, norm="none")},
        preset_params={"published": {"aligned": False}},
        published=(
            Published("PlainMamba-L2", "ImageNet-1k top-1 %, 224 px", 81.6, _PLAINMAMBA),
            Published("PlainMamba-L3", "ImageNet-1k top-1 %, 224 px", 82.3, _PLAINMAMBA),
        ),
    )
)
class PlainMamba(ScanCore):
    """The sum of four selective scans along snakes, with one set of maps and a vector for each direction of a step.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        aligned: whether each token is scanned with its own step and maps, not with those of the token at its place in
            the sequence of rows, as in the released code; None for True, or for False in the published shell.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.

    Raises:
        InputError: a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        aligned: bool | None = None,
        state_dim: int = 16,
        rank: int | None = None,
    ) -> None:
        check_choice("mixer.aligned", aligned, (None, True, False))
        super().__init__(site, backend=backend, along=SNAKES[:1], state_dim=state_dim, rank=rank)
        self.aligned = aligned is not False
        self.directions = nn.Parameter(torch.empty(len(orders.DIRECTIONS), state_dim))
        truncated_normal_(self.directions)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        height, width = u.shape[1:3]
        (branch,) = self._branches()
        tokens = u.flatten(1, 2).to(wide(u.dtype))
        maps = branch.maps(tokens)
        total: Tensor | None = None
        for base in SNAKES:
            v = orders.gather(tokens.unflatten(1, (height, width)), base)
            ahead, back = self._maps_along(maps, base, height, width)
            y = branch.recur(v, *ahead, reverse=False) + branch.recur(v, *back, reverse=True)
            grid = orders.scatter(y, base, height, width)
            total = grid if total is None else total + grid
        assert total is not None
        return total.to(u.dtype)

    def _maps_along(self, maps: Maps, base: str, height: int, width: int) -> tuple[Maps, Maps]:
        """Step, input and output maps (B, N, …) at the places of a snake, for reading it forwards and backwards."""
        ahead = back = maps
        if self.aligned:
            order = orders.permutation(base, height, width, maps[0].device)
            step, B, C = (each.index_select(1, order) for each in maps)
            ahead = back = (step, B, C)
        else:  # a scan takes the rows' maps in turn, and one from the end starts at the end of the snake
            step, B, C = (each.flip(1) for each in maps)
            back = (step, B, C)
        return self._directed(ahead, base, height, width), self._directed(back, base + orders.REVERSED, height, width)

    def _directed(self, maps: Maps, name: str, height: int, width: int) -> Maps:
        """The maps with the vector of each step's direction added to the input map."""
        step, B, C = maps
        taken = orders.directions(name, height, width, step.device)
        if name.endswith(orders.REVERSED):  # the maps are in the order of the snake, however it is read
            taken = taken.flip(0)
        return step, B + self.directions.to(B.dtype)[taken], C

    def core_cost(self, height: int, width: int) -> Cost:
        """The branch's cost (`Branch.cost`), whose maps are made once, and three scans more."""
        (branch,) = self._branches()
        once = branch.cost(height * width)
        return Cost(once.projection_macs, 4 * once.mixing_macs, 4 * once.state_elements)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` (B, 1, H, W), the step sizes averaged over channels, and `influence` (B, 4, H, W), how much each token

        counts at the grid's centre in each snake forwards and backwards (`Branch.influence`).
        """
        height, width = u.shape[1:3]
        (branch,) = self._branches()
        maps = branch.maps(u.flatten(1, 2))
        influences = []
        for base in SNAKES:
            token = int(orders.inverse(base, height, width)[height // 2 * width + width // 2])
            for reverse, along in enumerate(self._maps_along(maps, base, height, width)):
                influence = branch.influence_of(*along, token, reverse=bool(reverse))[1]
                influences.append(orders.scatter(influence[..., None], base, height, width)[..., 0])
        steps = branch.influence_of(*maps, 0, reverse=False)[0].mean(-1)
        return {"step": steps.unflatten(1, (1, height, width)), "influence": torch.stack(influences, dim=1)}
