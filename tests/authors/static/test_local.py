"""Attention in windows and neighbourhoods, and deformable convolutions, against their authors' code."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import TIMM, built, empty, images, of
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM = 32
MESHES = {"torch.meshgrid([coords_h, coords_w])": "torch.meshgrid([coords_h, coords_w], indexing='ij')"}
DETECTOR = "SwinTransformer/Swin-Transformer-Object-Detection"


class Nothing(nn.Module):
    """In the place of a block's MLP."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def plain(block: Any) -> Any:
    """A block of Swin with random weights, without its norms and its MLP."""
    randomised(block)
    block.norm1 = block.norm2 = nn.Identity()
    block.mlp = Nothing()
    return block


def attention_weights(attention: Any) -> dict[str, Tensor]:
    """Of layers that make queries, keys and values by one map."""
    weights = {**of("shell.out_proj", attention.proj)}
    for name, each in attention.qkv.named_parameters():
        queries_and_keys, values = each.split([2 * DIM, DIM])
        weights |= {f"core.qk.{name}": queries_and_keys, f"shell.in_proj.{name}": values}
    return weights


def window_weights(attention: Any, window: int) -> dict[str, Tensor]:
    """Their table is by how far the query lies behind the key, and is smaller where the grid clips the window."""
    side = 2 * attention.window_size[0] - 1
    table = attention.relative_position_bias_table.view(side, side, -1).permute(2, 0, 1).flip(1, 2)
    return attention_weights(attention) | {"core.table": F.pad(table, [window - attention.window_size[0]] * 4)}


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [((14, 14), 7, 0), ((14, 14), 7, 3), ((21, 14), 7, 3), ((8, 12), 4, 1), ((5, 5), 7, 3), ((7, 7), 7, 3)],
)
def test_window(grid: tuple[int, int], window: int, shift: int) -> None:
    """On grids that windows divide, or that are smaller than a window."""
    module: Any = Source.of("window").load(
        "swin_transformer", root="models", stubs=TIMM, edits=MESHES | {"sys.path.append(kernel_path)": "pass"}
    )
    theirs = plain(module.SwinTransformerBlock(DIM, grid, 4, window_size=window, shift_size=shift))
    ours = built("window", DIM, shell="published", heads=4, window=window, shift=shift)
    fill(ours, window_weights(theirs.attn, window))
    same = [(ours.shell.out_proj.weight, theirs.attn.proj.weight)]
    compare("window", ours, lambda x: theirs(x.flatten(1, 2)).view(x.shape) - x, images(*grid, dim=DIM), same=same)


@pytest.mark.parametrize(("grid", "window", "shifted"), [((9, 11), 4, True), ((9, 11), 4, False), ((13, 8), 7, True)])
def test_window__padded(grid: tuple[int, int], window: int, shifted: bool) -> None:
    """On other grids, as in the authors' detector, if the values have no bias: ours is not there in the padding."""
    module: Any = Source.of("window", DETECTOR).load(
        "mmdet.models.backbones.swin_transformer",
        empty=["mmdet.models.backbones"],
        stubs={**TIMM, **empty("mmcv_custom", "mmdet.utils", "mmdet.models.builder")},
        edits=MESHES,
    )
    layer = module.BasicLayer(DIM, 2, 4, window_size=window)
    block = plain(layer.blocks[int(shifted)])
    block.attn.qkv.bias.data[2 * DIM :] = 0
    layer.blocks = nn.ModuleList([block])
    ours = built("window", DIM, shell="published", heads=4, window=window, shift=window // 2 if shifted else 0)
    fill(ours, window_weights(block.attn, window))

    def function(x: Tensor) -> Tensor:
        y: Tensor = layer(x.flatten(1, 2), *grid)[0]
        return y.view(x.shape) - x

    compare("window, padded", ours, function, images(*grid, dim=DIM))


class Neighbourhoods:
    """The authors' kernels for the CPU as they are written down, with their own functions for places, compiled."""

    def __init__(self, header: str, folder: Path) -> None:
        compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        if compiler is None:
            pytest.skip("needs a compiler of C++")
        names = ("get_window_start", "get_pb_start")
        exported = "".join(
            f'extern "C" int our_{name}(int i, int n, int k, int d) {{ return {name}(i, n, k, k / 2, d); }}\n'
            for name in names
        )
        (folder / "places.cpp").write_text(f"#include <algorithm>\n{header}\n{exported}", encoding="utf-8")
        command = [compiler, "-shared", "-fPIC", "-o", str(folder / "places.so"), str(folder / "places.cpp")]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(str(folder / "places.so"))
        self.functions = [getattr(library, f"our_{name}") for name in names]

    def places(self, length: int, kernel: int, dilation: int) -> tuple[Tensor, Tensor]:
        """Along an axis, for each token (N, k): which tokens it sees, and where their biases are in the table."""
        starts = [[made(i, length, kernel, dilation) for i in range(length)] for made in self.functions]
        (first, place), steps = torch.tensor(starts)[..., None], torch.arange(kernel)
        return first + dilation * steps, place + steps

    def seen(self, field: Tensor, kernel: int, dilation: int) -> Tensor:
        """What each token sees of a field (B, heads, H, W, e): (B, heads, H, W, k, k, e)."""
        rows, columns = (self.places(length, kernel, dilation)[0] for length in field.shape[2:4])
        return field[:, :, rows[:, None, :, None], columns[None, :, None, :]]

    def scores(self, q: Tensor, k: Tensor, table: Tensor | None, kernel: int, dilation: int) -> Tensor:
        scores = torch.einsum("bhije,bhijkle->bhijkl", q, self.seen(k, kernel, dilation))
        if table is not None:
            rows, columns = (self.places(length, kernel, dilation)[1] for length in q.shape[2:4])
            scores = scores + table[:, rows[:, None, :, None], columns[None, :, None, :]]
        return scores.flatten(-2)

    def values(self, weights: Tensor, v: Tensor, kernel: int, dilation: int) -> Tensor:
        return torch.einsum(
            "bhijkl,bhijkle->bhije", weights.unflatten(-1, (kernel, kernel)), self.seen(v, kernel, dilation)
        )


@pytest.mark.parametrize(
    ("grid", "kernel", "dilation", "bias"),
    [
        ((9, 11), 7, 1, True),
        ((14, 15), 7, 2, True),
        ((13, 9), 3, 3, True),
        ((16, 15), 5, 3, True),
        ((7, 7), 7, 1, True),
        ((12, 8), 3, 1, False),
    ],
)
def test_neighbourhood(grid: tuple[int, int], kernel: int, dilation: int, bias: bool, tmp_path: Path) -> None:
    """Where windows are no larger than the grid: other grids are padded."""
    source = Source.of("neighbourhood")
    header = source.git("show", f"{source.commit}:src/natten/csrc/cpu/natten_cpu_commons.h")
    kernels = Neighbourhoods(header, tmp_path)
    functional = {"natten2dqkrpb": kernels.scores, "natten2dav": kernels.values}
    module: Any = source.load("natten.natten2d", root="src", stubs={"natten.functional": functional})
    theirs = randomised(module.NeighborhoodAttention2D(DIM, 4, kernel, dilation, bias=bias))
    ours = built(
        "neighbourhood",
        DIM,
        shell="published",
        heads=4,
        window=kernel,
        dilation=dilation,
        position_bias=bias,
    )
    table = {"core.table": theirs.rpb} if bias else {}
    fill(ours, attention_weights(theirs) | table)
    same = [(ours.core.table, theirs.rpb)] if bias else []
    compare("neighbourhood", ours, theirs, images(*grid, dim=DIM), same=same)


def dcnv3_module() -> Any:
    """Their reference makes its grids in single precision: here in double."""
    packages = {"get_distribution": lambda _: SimpleNamespace(version="1")}
    return Source.of("dcn", "OpenGVLab/InternImage").load(
        "ops_dcnv3.modules.dcnv3",
        root="classification",
        stubs={"DCNv3": {}, "pkg_resources": packages},
        edits={"torch.float32": "torch.float64"},
    )


def point_maps(offsets: Tensor, weights: Tensor, groups: int, kernel: int) -> tuple[Tensor, Tensor]:
    """Maps to offsets and weights: theirs go column by column, and to the right first."""
    points = torch.arange(kernel**2).view(kernel, kernel).mT.flatten()
    offsets = offsets.unflatten(0, (groups, kernel**2, 2))[:, points].flip(2).flatten(0, 2)
    return offsets, weights.unflatten(0, (groups, kernel**2))[:, points].flatten(0, 1)


@pytest.mark.parametrize(
    ("grid", "groups", "kernel", "dilation", "scale", "centre", "conv"),
    [
        ((9, 11), 4, 3, 1, 1.0, False, None),
        ((8, 6), 2, 5, 1, 2.0, True, 3),
        ((7, 12), 4, 3, 2, 0.5, True, None),
    ],
)
def test_dcn__v3(
    grid: tuple[int, int], groups: int, kernel: int, dilation: int, scale: float, centre: bool, conv: int | None
) -> None:
    theirs = randomised(
        dcnv3_module().DCNv3_pytorch(
            DIM,
            kernel,
            conv,
            stride=1,
            pad=dilation * (kernel // 2),
            dilation=dilation,
            group=groups,
            offset_scale=scale,
            center_feature_scale=centre,
        )
    )
    ours = built(
        "dcn",
        DIM,
        shell="published",
        groups=groups,
        kernel=kernel,
        dilation=dilation,
        offset_scale=scale,
        centre=centre,
        conv=conv,
    )
    weights = {
        **of("shell.in_proj", theirs.input_proj),
        **of("shell.out_proj", theirs.output_proj),
        **of("core.conv", theirs.dw_conv[0]),
        **of("core.norm", theirs.dw_conv[1][1]),
    }
    for name in ("weight", "bias"):
        maps = point_maps(getattr(theirs.offset, name), getattr(theirs.mask, name), groups, kernel)
        weights |= {f"core.offsets.{name}": maps[0], f"core.weights.{name}": maps[1]}
        if centre:
            weights[f"core.centre.{name}"] = getattr(theirs, f"center_feature_scale_proj_{name}")
    fill(ours, weights)
    same = [(ours.core.conv.weight, theirs.dw_conv[0].weight), (ours.shell.in_proj.weight, theirs.input_proj.weight)]
    compare("dcn v3", ours, theirs, images(*grid, dim=DIM), same=same)


class V4:
    """In the place of a CUDA kernel: the reference of v3, with which its authors test it. Offsets are in front."""

    @staticmethod
    def apply(x: Tensor, maps: Tensor, *options: Any) -> Tensor:
        *geometry, groups, channels, scale, _, without_centre = options
        points = geometry[0] * geometry[1]
        made = maps[..., : 3 * groups * points].unflatten(-1, (groups, 3 * points))
        offsets, weights = (part.flatten(-2) for part in made.split([2 * points, points], dim=-1))
        core: Any = dcnv3_module().dcnv3_core_pytorch
        y: Tensor = core(x, offsets, weights, *geometry, groups, channels, scale, without_centre)
        return y


@pytest.mark.parametrize(("grid", "groups", "conv"), [((9, 11), 2, None), ((8, 6), 4, 5)])
def test_dcn__v4(grid: tuple[int, int], groups: int, conv: int | None) -> None:
    """Without the outputs that fill its map up to a multiple of 8."""
    module: Any = Source.of("dcn", "OpenGVLab/DCNv4").load(
        "DCNv4.modules.dcnv4",
        root="DCNv4_op",
        empty=["DCNv4.modules"],
        stubs={"DCNv4.functions": {"DCNv4Function": V4}},
    )
    dim, points = 64, 9
    theirs = randomised(module.DCNv4(dim, 3, group=groups, dw_kernel_size=conv), scale=0.2)
    ours = built("dcn", dim, shell="published", variant="v4", groups=groups, conv=conv)
    weights = {**of("shell.in_proj", theirs.value_proj), **of("shell.out_proj", theirs.output_proj)}
    weights |= of("core.conv", theirs.offset_mask_dw if conv else None)
    for name in ("weight", "bias"):
        made = getattr(theirs.offset_mask, name)[: 3 * groups * points].unflatten(0, (groups, 3 * points))
        maps = point_maps(made[:, : 2 * points].flatten(0, 1), made[:, 2 * points :].flatten(0, 1), groups, 3)
        weights |= {f"core.offsets.{name}": maps[0], f"core.weights.{name}": maps[1]}
    fill(ours, weights)
    same = [(ours.shell.in_proj.weight, theirs.value_proj.weight)]
    compare("dcn v4", ours, lambda x: theirs(x.flatten(1, 2), grid).view(x.shape), images(*grid, dim=dim), same=same)


class Samples:
    """In the place of a Triton kernel: bilinear samples, zero beyond the border; theirs extrapolates at two borders."""

    @staticmethod
    def apply(values: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        (batch, *grid, groups), points = values.shape[:4], weights.shape[-1]
        rows, columns = (torch.arange(side, dtype=offsets.dtype) for side in grid)
        right, down = columns[:, None, None] + offsets[..., 0], rows[:, None, None, None] + offsets[..., 1]
        places = torch.stack([(2 * right + 1) / grid[1] - 1, (2 * down + 1) / grid[0] - 1], dim=-1)
        places = places.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, -1, points, 2)
        fields = values.permute(0, 3, 4, 1, 2).flatten(0, 1)
        read = F.grid_sample(fields, places, align_corners=False).unflatten(0, (batch, groups)).unflatten(3, grid)
        return torch.einsum("bgehwp,bhwgp->bhwge", read, weights)


@pytest.mark.parametrize("grid", [(9, 11), (20, 14)])
def test_dcn__flow(grid: tuple[int, int]) -> None:
    module: Any = Source.of("dcn", "MCG-NJU/FlowDCN").load(
        "src.models.flowdcn",
        stubs={
            "src.models.base_model": {"BaseModel": nn.Module},
            "src.ops.triton_kernels.function": {"DCNFunction": Samples},
        },
        edits={'device="cuda"': 'device="cpu"'},
    )
    groups = 2
    theirs = randomised(module.MultiScaleDCN(DIM, groups, DIM // groups, 9), scale=0.2)
    ours = built("dcn", DIM, shell="published", variant="flow_dcn", groups=groups)
    weights = {
        **of("shell.in_proj", theirs.v),
        **of("shell.out_proj", theirs.out),
        **of("core.scales", theirs.qk_scales),
        **of("core.weights", theirs.qk_weights),
        "core.scale": theirs.deformables_scale.flatten(),
    }
    for name, each in theirs.qk_deformables.named_parameters():
        weights[f"core.offsets.{name}"] = each.unflatten(0, (groups, 9, 2)).flip(2).flatten(0, 2)
    fill(ours, weights)
    same = [
        (ours.core.scales.weight, theirs.qk_scales.weight),
        (ours.core.weights.bias, theirs.qk_weights.bias),
        (ours.shell.in_proj.bias, theirs.v.bias),
    ]
    compare("dcn flow", ours, theirs, images(*grid, dim=DIM), same=same)
