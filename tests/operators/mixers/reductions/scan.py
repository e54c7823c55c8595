"""Arrows from selective scans (S6): of `mamba`, which is Vim, of `ss2d`, and of mixers that scan parts of a grid."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from operators import scan
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

GRID = (4, 5)
TOKENS = 20
BACKEND = "chunked"
"""Compiles nothing."""


def by_raster(function):
    """A function of sequences (B, N, D) as one of images, row by row."""
    return lambda x: function(x.flatten(1, 2)).view_as(x)


def s6(branch):
    """One scan of sequences by the definition, with the maps of a branch."""

    def scanned(v):
        step, B, C = branch.maps(v)
        return scan.selective_scan(
            v.mT, step.mT, -branch.A_log.exp(), B.mT, C.mT, branch.D,
            delta_bias=branch.step.bias, delta_softplus=True, backend="reference",
        ).mT  # fmt: skip

    return scanned


def silence(branch):
    """C = 0 and D = 0."""
    set_to(0.0, branch.project.weight[-branch.state_dim :], branch.D)


def s6_with_constant_maps_is_a_convolution():
    """With the kernel Σ_n C_n exp(l Δ A_n) Δ B_n at lag l: S4D with real A and Euler's rule for B."""
    mixer = make("ss2d", orders=["row"], state_dim=3, backend=BACKEND)
    (branch,) = mixer.core.branches
    step, (B, C) = image(1, 1)[0, 0, 0], image(2, 3, width=1)[0, :, :, 0]
    branch.maps = lambda v: (step.expand_as(v), B.expand(*v.shape[:2], -1), C.expand(*v.shape[:2], -1))
    dt = F.softplus(step + branch.step.bias)
    lags = torch.arange(TOKENS)[:, None, None]
    kernel = ((-branch.A_log.exp() * dt[:, None] * lags).exp() * dt[:, None] * B * C).sum(-1)

    def convolved(v):
        return F.conv1d(F.pad(v.mT, (TOKENS - 1, 0)), kernel.flip(0).mT[:, None], groups=6).mT + branch.D * v

    assert_same_function(mixer, by_raster(convolved), image(*GRID))


def s6_that_forgets_at_once_is_token_wise():
    """A → −∞, in `mamba` behind a convolution of one tap: y_t = (Δ_t C_t · B_t + D) v_t."""
    for mixer, scale in ((make("mamba", conv=1, backend=BACKEND), 0.5), (make("ss2d", backend=BACKEND), 1)):
        branches = list(mixer.core.branches)
        set_to(12.0, *(branch.A_log for branch in branches))

        def by_token(x, branches=branches, scale=scale):
            total = 0
            for branch in branches:
                v = x if branch.conv is None else F.silu(branch.conv.weight[:, 0, 0] * x + branch.conv.bias)
                step, B, C = branch.maps(v)
                total = total + (F.softplus(step + branch.step.bias) * (B * C).sum(-1, keepdim=True) + branch.D) * v
            return scale * total

        assert_same_function(mixer, by_token, image(*GRID))


def vim_with_tied_directions_commutes_with_half_turns():
    mixer = make("mamba", conv=3, backend=BACKEND)
    ahead, back = mixer.core.branches
    back.load_state_dict(ahead.state_dict())
    assert_same_function(lambda x: mixer(x.rot90(2, (1, 2))), lambda x: mixer(x).rot90(2, (1, 2)), image(*GRID))


def vim_without_its_way_back_is_causal_mamba():
    mixer = make("mamba", backend=BACKEND)
    ahead, back = mixer.core.branches
    silence(back)
    scanned = s6(ahead)
    assert_same_function(mixer, by_raster(lambda v: scanned(v) / 2), image(*GRID))


def ss2d_of_one_direction_is_a_raster_scan():
    for heard, name in enumerate(("row", "col", "row_r", "col_r")):
        mixer = make("ss2d", state_dim=2, backend=BACKEND)
        for index, branch in enumerate(mixer.core.branches):
            if index != heard:
                silence(branch)
        scanned = by_raster(s6(mixer.core.branches[heard]))

        def along(x, name=name, scanned=scanned):
            x = x.transpose(1, 2) if name.startswith("col") else x
            y = scanned(x.flip(1, 2)).flip(1, 2) if name.endswith("_r") else scanned(x)
            return y.transpose(1, 2) if name.startswith("col") else y

        assert_same_function(mixer, along, image(*GRID))


def es2d_of_dilation_1_is_a_raster_scan():
    mixer = make("efficientvmamba", dilation=1, state_dim=2, backend=BACKEND)
    assert_same_function(mixer, by_raster(s6(mixer.core.branches[0])), image(*GRID))


def es2d_of_single_tokens_is_token_wise():
    """As many sub-grids as tokens, each with maps of its own."""
    mixer = make("efficientvmamba", dilation=5, state_dim=2, backend=BACKEND)

    def by_token(x):
        tokens = [x[:, index // 5, index % 5][:, None] for index in range(TOKENS)]
        return torch.cat([s6(mixer.core.branches[i])(v) for i, v in enumerate(tokens)], 1).view_as(x)

    assert_same_function(mixer, by_token, image(*GRID))


def ms2d_of_stride_1_is_the_cross_scan():
    """Of what the convolutions, the same in both fields, make of the image."""
    mixer = make("msvmamba", stride=1, conv=3, coarse_conv=3, state_dim=2, backend=BACKEND)
    cross = make("ss2d", orders=["row", "row_r", "col", "col_r"], state_dim=2, backend=BACKEND)
    core = mixer.core
    core.coarse_conv.load_state_dict(core.conv.state_dict())
    cross.core.branches.load_state_dict(core.branches.state_dict())
    convolved = lambda x: F.silu(core.conv(x.movedim(-1, 1)).movedim(1, -1))  # noqa: E731
    assert_same_function(mixer, lambda x: cross(convolved(x)), image(*GRID))


def groupmamba_with_affinity_1_is_a_cross_scan_of_split_channels():
    mixer = make("groupmamba", 8, state_dim=2, backend=BACKEND)
    set_to(0.0, mixer.core.affinity.select.weight)
    set_to(50.0, mixer.core.affinity.select.bias)
    crosses = [make("ss2d", 2, orders=[name], state_dim=2, backend=BACKEND) for name in mixer.core.along]
    for cross, branch in zip(crosses, mixer.core.branches, strict=True):
        cross.core.branches[0].load_state_dict(branch.state_dict())

    def split(x):
        return torch.cat([cross(part) for cross, part in zip(crosses, x.chunk(4, -1), strict=True)], -1)

    assert_same_function(mixer, split, image(*GRID, width=8))


def plainmamba_without_directions_sums_tied_snakes():
    mixer = make("plainmamba", state_dim=2, backend=BACKEND)
    set_to(0.0, mixer.core.directions)
    snakes = ["snake_row", "snake_row_r", "snake_col", "snake_col_r"]
    tied = make("ss2d", orders=snakes, state_dim=2, backend=BACKEND)
    for branch in tied.core.branches:
        branch.load_state_dict(mixer.core.branches[0].state_dict())
    assert_same_function(mixer, tied, image(*GRID))


def localmamba_of_one_window_is_a_sum_of_row_scans():
    mixer = make("localmamba", window=5, merge="sum", state_dim=2, backend=BACKEND)
    rows = make("ss2d", orders=["row", "row_r"] * 2, state_dim=2, backend=BACKEND)
    rows.core.branches.load_state_dict(mixer.core.branches.state_dict())
    assert_same_function(mixer, rows, image(*GRID))


def vim_without_its_way_back_is_half_of_zigma():
    for order in ("zigzag_0", "zigzag_6"):
        both = make("mamba", order=order, conv=3, backend=BACKEND)
        one = make("zigma", order=order, conv=3, backend=BACKEND)
        ahead, back = both.core.branches
        silence(back)
        one.core.branches[0].load_state_dict(ahead.state_dict())
        assert_same_function(lambda x, both=both: 2 * both(x), one, image(*GRID))


def mhs_of_equal_routes_is_zero():
    """One token, one set of maps: nothing varies, and nothing passes the attention."""
    mixer = make("mhs", patterns=["snake"], project=False, backend=BACKEND)
    first, *others = mixer.core.branches
    for branch in others:
        branch.load_state_dict(first.state_dict())
    assert_same_function(mixer, lambda x: 0 * x, image(1, 1))


def mhs_without_attention_is_a_cross_scan_of_a_projection():
    mixer = make("mhs", patterns=["raster"], project=False, state_dim=2, backend=BACKEND)
    mixer.core.fused = lambda routes: routes.sum(0)
    cross = make("ss2d", orders=["row", "row_r", "col", "col_r"], state_dim=2, backend=BACKEND)
    cross.core.branches.load_state_dict(mixer.core.branches.state_dict())
    assert_same_function(mixer, lambda x: cross(mixer.core.subspaces(x)), image(*GRID))


def fastvim_of_one_column_is_vim():
    for name, grid in (("row", (7, 1)), ("col", (1, 7))):
        fastvim, vim = (make(kind, order=name, conv=3, backend=BACKEND) for kind in ("fastvim", "mamba"))
        vim.load_state_dict(fastvim.state_dict())
        assert_same_function(fastvim, vim, image(*grid))


def spatial_mamba_without_fusion_is_a_raster_scan():
    """One centre tap alone, whichever convolution has it."""
    for index in range(3):
        mixer = make("spatial_mamba", state_dim=2, backend=BACKEND)
        set_to(0.0, mixer.core.fusion.kernels)
        set_to(1.0, mixer.core.fusion.kernels[index, :, :, 1, 1], mixer.core.fusion.alpha[index])
        assert_same_function(mixer, by_raster(s6(mixer.core.branches[0])), image(*GRID))


def mambavision_that_forgets_at_once_is_two_depthwise_convolutions():
    """A → −∞: behind them the first half is weighted token by token."""
    mixer = make("mambavision", backend=BACKEND)
    (branch,) = mixer.core.branches
    set_to(12.0, branch.A_log)

    def convolved(x):
        v = F.silu(F.conv1d(x.flatten(1, 2).mT, mixer.core.conv.weight, padding=1, groups=6)).mT
        step, B, C = branch.maps(v[..., :3])
        gain = F.softplus(step + branch.step.bias) * (B * C).sum(-1, keepdim=True) + branch.D
        return torch.cat([gain * v[..., :3], v[..., 3:]], -1).view_as(x)

    assert_same_function(mixer, convolved, image(*GRID))


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("S6, constant dt, B, C -> LTI convolution", s6_with_constant_maps_is_a_convolution),
    ("S6, A -> -inf -> token-wise map", s6_that_forgets_at_once_is_token_wise),
    ("Vim, forward = backward -> 180-degree-equivariant", vim_with_tied_directions_commutes_with_half_turns),
    ("Vim, backward zero -> causal Mamba", vim_without_its_way_back_is_causal_mamba),
    ("SS2D, three directions' C and D = 0 -> raster S6", ss2d_of_one_direction_is_a_raster_scan),
    ("ES2D, p = 1 -> raster S6", es2d_of_dilation_1_is_a_raster_scan),
    ("ES2D, p = grid -> token-wise map", es2d_of_single_tokens_is_token_wise),
    ("MS2D, stride 1 -> SS2D", ms2d_of_stride_1_is_the_cross_scan),
    (
        "GroupMamba, affinity 1 -> cross-scan of split channels",
        groupmamba_with_affinity_1_is_a_cross_scan_of_split_channels,
    ),
    ("PlainMamba, no directions -> tied snakes", plainmamba_without_directions_sums_tied_snakes),
    ("LocalMamba, merge = sum, window = grid -> SS2D", localmamba_of_one_window_is_a_sum_of_row_scans),
    ("Vim, backward zero -> ZigMa", vim_without_its_way_back_is_half_of_zigma),
    ("MHS-VM, equal routes -> 0", mhs_of_equal_routes_is_zero),
    ("MHS-VM, one head, no attention -> SS2D", mhs_without_attention_is_a_cross_scan_of_a_projection),
    ("FastVim, W = 1 -> Vim", fastvim_of_one_column_is_vim),
    ("Spatial-Mamba, fusion = identity -> raster S6", spatial_mamba_without_fusion_is_a_raster_scan),
    (
        "MambaVision, A -> -inf -> two depthwise convolutions",
        mambavision_that_forgets_at_once_is_two_depthwise_convolutions,
    ),
]
