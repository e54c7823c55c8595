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
from operators.states.initial import InitialStates

SNAKES = ("snake_row", "snake_col")
BOTH_WAYS = ("snake_row", "snake_row_r", "snake_col", "snake_col_r")

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
        code="ChenhongyiYang/PlainMamba at 0975a1d: outputs and gradients within 6e-16 (relative RMS, float64)",
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
        (branch,) = self._branches()
        branch.initial = InitialStates(site.width, state_dim, sequences=2 * len(SNAKES))
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
        total: Tensor | None = None
        for index, ((order, steps), (ahead, back)) in enumerate(self._walks(branch.maps(tokens), height, width)):
            v = tokens.index_select(1, order)
            y = branch.recur(v, *ahead, reverse=False, sequence=2 * index)
            y = y + branch.recur(v, *back, reverse=True, sequence=2 * index + 1)
            y = y.index_select(1, steps)
            total = y if total is None else total + y
        assert total is not None
        return total.unflatten(1, (height, width)).to(u.dtype)

    def _walks(self, maps: Maps, height: int, width: int) -> list[tuple[tuple[Tensor, Tensor], tuple[Maps, Maps]]]:
        """For each snake its permutation and its inverse (N,), and its maps (B, N, …) forwards and backwards.

        The maps are at the places of the snake, whichever way it is read.
        """
        device = maps[0].device
        tables = orders.tables(SNAKES, height, width, device)
        taken = orders.directions(BOTH_WAYS, height, width, device)
        walks = []
        for index in range(len(SNAKES)):
            order, steps = tables[0, index], tables[1, index]
            ahead, back = taken[2 * index], taken[2 * index + 1].flip(0)
            if self.aligned:
                there = (maps[0].index_select(1, order), maps[1].index_select(1, order), maps[2].index_select(1, order))
                both = there, there
            else:  # a scan takes the rows' maps in turn, and one from the end starts at the end of the snake
                both = maps, (maps[0].flip(1), maps[1].flip(1), maps[2].flip(1))
            walks.append(((order, steps), (self._directed(both[0], ahead), self._directed(both[1], back))))
        return walks

    def _directed(self, maps: Maps, taken: Tensor) -> Maps:
        """The maps with the vector of each step's direction added to the input map."""
        step, B, C = maps
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
        for (_, inverse), along in self._walks(maps, height, width):
            token = int(inverse[height // 2 * width + width // 2])
            for reverse, made in enumerate(along):
                influence = branch.influence_of(*made, token, reverse=bool(reverse))[1]
                influences.append(influence.index_select(1, inverse).unflatten(1, (height, width)))
        steps = branch.influence_of(*maps, 0, reverse=False)[0].mean(-1)
        return {"step": steps.unflatten(1, (1, height, width)), "influence": torch.stack(influences, dim=1)}
