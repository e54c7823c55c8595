"""Mixers with a long convolution between gates, Hyena's kin, against their authors' code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.weights import joined, named, of, pairs, randomised, split

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]
WIDTH = 6


def sine_network(theirs: nn.Sequential, sines: Sequence[Any]) -> dict[str, Tensor]:
    """The weights of a `SineNetwork`, from layers among which there are sines, and the sines that differ."""
    layers = [layer for layer in theirs if not hasattr(layer, "freq")]
    frequencies = {f"frequencies.{number}": sine.freq.flatten() for number, sine in enumerate(sines)}
    return named(**{f"layers__{number}": of(layer) for number, layer in enumerate(layers)}) | frequencies


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("directions", [1, 4])
def test_hyena_nd(directions: int, separable: bool) -> None:
    """On square grids, which theirs needs, without dividing its filter by twice the side.

    Its four directions have weights that all channels share, and a bias, which is here one of the map that follows.
    """
    module = Source.of("hyena_nd").load(
        "timm.models.layers.hyena2d",
        root="pytorch-image-models",
        empty=("timm", "timm.models", "timm.models.layers"),
        edits={
            "@torch.jit.script": "",
            "k.float(), s=(fft_size, fft_size)) / fft_size": "k, s=(fft_size, fft_size))",
            "u.float()": "u",
        },
    )
    side = 6
    theirs = randomised(
        module.HyenaOperator2d(
            WIDTH,
            side,
            filter_order=8,
            hyena2d_filter=not separable,
            directional_mode="4dir" if directions == 4 else "standard",
        )
    )
    made = theirs.filter_fn
    made.pos_emb = module.PositionalEmbedding(3, side)  # what ours is a function of, not random numbers
    ours = operators.create(
        "hyena_nd", WIDTH, grid=(side, side), shell="published", hidden=8, directions=directions, separable=separable
    )
    x2, x1, v = split(of(theirs.in_proj), *[WIDTH] * 3)
    gate, entry, value = split(of(theirs.short_filter), *[WIDTH] * 3)
    out = of(theirs.out_proj)
    weights = {"core.s": made.bias}
    if directions == 4:
        mixed = of(theirs.linear_mix)
        weights["core.directions_weight"] = mixed["weight"].mT.expand(4, WIDTH)
        out["bias"] = out["bias"] + out["weight"].sum(1) * mixed["bias"]

    def sines_of(network: nn.Sequential) -> dict[str, Tensor]:
        return sine_network(network, [network[1]])

    networks = {"core__filter": sines_of(made.Yimplicit_filter if separable else made.implicit_filter)}
    if separable:
        networks["core__row_filter"] = sines_of(made.Ximplicit_filter)
    layers = {
        "shell__in_proj": v,
        "shell__out_proj": out,
        "core__maps": joined(x1, x2),
        "core__conv": joined(value, entry, gate),
    }
    fill(ours, weights | named(**layers, **networks))
    same = pairs(ours, {"core.s": made.bias})
    name = f"hyena_nd, directions {directions}, {'separable' if separable else 'not separable'}"
    compare(name, ours, theirs, torch.randn(2, side, side, WIDTH), same=same)


class Config(dict):
    """What `Lazy` makes; its arguments are attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Lazy:
    """In the place of `LazyConfig`."""

    def __init__(self, target: Callable[..., Any]) -> None:
        self.target = target

    def __call__(self, **arguments: Any) -> Config:
        return Config(__target__=self.target, **arguments)


def instantiate(config: Config) -> Any:
    arguments = dict(config)
    return arguments.pop("__target__")(**arguments)


def nv_subquadratic(name: str, *in_float32: str) -> ModuleType:
    """A module of nvSubquadratic with `in_float32`, words for float32, saying float64."""
    names = {"LazyConfig": Lazy, "instantiate": instantiate, "_resolve_target": lambda target: target}
    return Source.of("hyena_siren").load(
        f"nvsubquadratic.{name}",
        empty=("nvsubquadratic", "nvsubquadratic.modules", "nvsubquadratic.ops", "nvsubquadratic.parallel"),
        stubs={"nvsubquadratic.lazy_config": names},
        edits={word: word.replace("float32", "float64").replace("float()", "double()") for word in in_float32},
    )


def siren_mixer(nominal: tuple[int, int], boundary: str, window: str) -> Any:
    """The mixer of their ViT-5 models, of another size."""
    norm = Lazy(nv_subquadratic("modules.rms_norm", "torch.float32").RMSNorm)(dim=WIDTH)
    kernel = Lazy(nv_subquadratic("modules.kernels_nd", "torch.float32").SIRENKernelND)(
        out_dim=WIDTH, data_dim=2, mlp_hidden_dim=8, num_layers=3, embedding_dim=8, omega_0=10.0, L_cache=nominal,
        use_bias=True,
    )  # fmt: skip
    masks = nv_subquadratic("modules.masks_nd", "torch.float32", ".float()")
    mask = Lazy(torch.nn.Identity)()
    if window == "gaussian":
        mask = Lazy(masks.GaussianModulationND)(data_dim=2, num_channels=WIDTH, grid_size=2)
    circular = boundary == "periodic"
    convolution = Lazy(nv_subquadratic("modules.ckconv_nd", "torch.float32").CKConvND)(
        data_dim=2, hidden_dim=WIDTH, kernel_cfg=kernel, mask_cfg=mask,
        grid_type="single" if circular else "double", fft_padding="circular" if circular else "zero",
    )  # fmt: skip
    short = Lazy(nn.Conv2d)(
        in_channels=3 * WIDTH, out_channels=3 * WIDTH, kernel_size=3, padding=1, groups=3 * WIDTH, bias=False
    )
    mixer = Lazy(nv_subquadratic("modules.hyena_nd").Hyena)(
        global_conv_cfg=convolution, short_conv_cfg=short, gate_nonlinear_cfg=Lazy(nn.SiLU)(),
        pixelhyena_norm_cfg=norm, qk_norm_cfg=Lazy(nv_subquadratic("utils.qk_norm").L2Norm)(),
        output_norm_cfg=norm, gate_nonlinear_2_cfg=Lazy(nn.Sigmoid)(),
    )  # fmt: skip
    return nv_subquadratic("modules.sequence_mixer").QKVSequenceMixer(WIDTH, mixer)


@pytest.mark.parametrize(
    ("boundary", "window"), [("absorbing", "none"), ("absorbing", "gaussian"), ("periodic", "gaussian")]
)
def test_hyena_siren(boundary: str, window: str) -> None:
    """On the nominal grid, on a larger and on a smaller one."""
    nominal = (5, 8)
    theirs = randomised(siren_mixer(nominal, boundary, window))
    mixer = theirs.mixer
    ours = operators.create(
        "hyena_siren", WIDTH, grid=nominal, shell="published", hidden=8, boundary=boundary, window=window
    )
    q, *maps = split(of(theirs.qkv_proj), *[WIDTH] * 3)
    siren = mixer.global_conv.kernel
    layers = [siren.positional_embedding.linear, *siren.hidden_linears, siren.out_linear]
    weights = {"core.skip_factor": mixer.global_conv.shortcut, "core.norm": mixer.pixelhyena_norm.weight}
    if window == "gaussian":
        sigma = mixer.global_conv.mask.std_param
        sigma.data.uniform_(0.5, 1.5)  # within the bounds of both, which differ on oblong grids
        weights["core.sigma"] = sigma
    fill(
        ours,
        weights
        | named(
            shell__in_proj=q,
            shell__out_proj=of(theirs.out_proj),
            shell__norm=of(mixer.output_norm),
            core__maps=joined(*maps),
            core__conv=of(mixer.short_conv),
            **{f"core__network__layers__{number}": of(layer) for number, layer in enumerate(layers)},
        ),
    )
    same = pairs(ours, {"core.norm": mixer.pixelhyena_norm.weight, "core.network.layers.0.weight": layers[0].weight})
    if window == "gaussian":
        same += pairs(ours, {"core.sigma": sigma})
    for grid in (nominal, (7, 9), (4, 6)):
        x = torch.randn(2, *grid, WIDTH)
        compare(f"hyena_siren, {boundary}, window {window}, {grid}", ours, theirs, x, same=same)


@pytest.mark.parametrize("kernel", [5, 9, 21])
def test_hyena_pixel(kernel: int) -> None:
    """With the ε of our shell's norm. Kernels are smaller than the image, and larger."""
    module = Source.of("hyena_pixel").load(
        "hyenapixel.nn.hyenapixel",
        root="src",
        empty=("hyenapixel", "hyenapixel.nn"),
        stubs={"timm.models.layers": {}},
        edits={".to(torch.float32)": ""},
    )
    theirs = randomised(module.HyenaPixelOperator(WIDTH, long_kernel_size=kernel, filter_emb_dim=8, use_layernorm=True))
    theirs.out_norm.eps = 1e-6
    ours = operators.create("hyena_pixel", WIDTH, shell="published", kernel=kernel, features=8)
    convolution = theirs.long_conv
    convolution.distance_map.data = module.create_distance_tensor((kernel, kernel))[None, None]
    q, *maps = split(of(theirs.pointwise_conv), *[WIDTH] * 3)
    network = convolution.implicit_filter
    fill(
        ours,
        {
            "core.places": convolution.z[0].movedim(0, -1),
            "core.decay": convolution.deltas.flatten(),
            "core.shift": convolution.shift.flatten(),
            "core.s": convolution.bias.flatten(),
            "core.scale": theirs.qk_norm.weight,
            "shell.norm.weight": theirs.out_norm.weight,
            "shell.norm.bias": torch.zeros(WIDTH),
        }
        | named(
            shell__in_proj=q,
            shell__out_proj=of(theirs.out_proj),
            core__maps=joined(*maps),
            core__conv=of(theirs.depthwise_conv),
            core__network=sine_network(network, [network[1], network[3]]),
        ),
    )
    same = pairs(ours, {"core.scale": theirs.qk_norm.weight, "shell.out_proj.weight": theirs.out_proj.weight})
    for grid in ((5, 7), (6, 4)):
        compare(f"hyena_pixel, kernel {kernel}, {grid}", ours, theirs, torch.randn(2, *grid, WIDTH), same=same)


def test_m2() -> None:
    """Along rows, both ways."""
    module = Source.of("m2").load(
        "src.mm.monarch_mixer_sequence_mixer",
        root="bert",
        empty=("src", "src.utils"),
        stubs={"opt_einsum": {}},
        edits={"@torch.jit.script": ""},
    )
    for grid in ((5, 7), (4, 6)):
        tokens = grid[0] * grid[1]
        theirs = module.MonarchMixerSequenceMixing(WIDTH, tokens, bidirectional=True, hyena_filter_order=8)
        places = theirs.filter_fn.pos_emb.z.detach().clone()
        made = randomised(theirs).filter_fn
        made.pos_emb.z.data.copy_(places)  # what ours is a function of, not random numbers
        ours = operators.create("m2", WIDTH, shell="published", hidden=8)
        x1, x2, v = split(of(theirs.in_linear), *[WIDTH] * 3)
        taps = split(of(theirs.short_filter), *[WIDTH] * 3)
        sine = made.implicit_filter[1]
        fill(
            ours,
            {"core.skip": made.bias}
            | named(
                shell__in_proj=v,
                shell__out_proj=of(theirs.out_linear),
                core__maps=joined(x1, x2),
                core__conv=joined(taps[2], *taps[:2]),
                core__forward_filter=sine_network(made.implicit_filter, [sine]),
                core__backward_filter=sine_network(made.implicit_filter_rev, [sine]),
            ),
        )

        def layer(x: Tensor, theirs: nn.Module = theirs) -> Tensor:
            mixed, _ = theirs(x.flatten(1, 2))
            return mixed.view(x.shape)

        same = pairs(ours, {"core.skip": made.bias, "shell.out_proj.weight": theirs.out_linear.weight})
        compare(f"m2 {grid}", ours, layer, torch.randn(2, *grid, WIDTH), same=same)
