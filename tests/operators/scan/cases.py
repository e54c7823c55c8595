"""Arguments for selective scans, and a scan's outputs with the gradients of all of them."""

import torch

from operators.scan import selective_scan

ENGINES = ("cpu", "chunked")
SERVED = (*ENGINES, "reference")
SHAPES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
REGIMES = ("plain", "tiny", "large", "mixed", "growing")
"""Of the steps: about 1; 1e-6; 20 to 100, where exp(dt A) vanishes; 1e-6 to 100; about 1 with a state that grows."""
OPTIONS = {"none": (), "skip": ("D",), "gate": ("z",), "bias": ("delta_bias",), "initial": ("initial_state",)}
OPTIONS["all"] = tuple(name for names in OPTIONS.values() for name in names)


def noise(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def steps(generator, regime, *shape):
    """Positive steps of a regime."""
    uniform = torch.rand(*shape, generator=generator, dtype=torch.float64)
    if regime == "mixed":
        return 10 ** (8 * uniform - 6)
    least, most = {"tiny": (5e-7, 2e-6), "large": (20, 100)}.get(regime, (0.05, 1.5))
    return least + (most - least) * uniform


def arguments(
    batch=2, channels=3, size=4, length=9, *, groups=None, regime="plain", options="none", softplus=False,
    dtype=torch.float64, channels_last=False, seed=0,
):  # fmt: skip
    """Tensors by name, all wanting gradients; drawn in float64 and rounded through float32, so equal in both types."""
    generator = torch.Generator().manual_seed(seed)
    shared = (batch, size, length) if groups is None else (batch, groups, size, length)
    given = {
        "u": noise(generator, batch, channels, length),
        "delta": steps(generator, regime, batch, channels, length),
        "A": -noise(generator, channels, size).exp(),
        "B": noise(generator, *shared),
        "C": noise(generator, *shared),
        "D": noise(generator, channels),
        "z": noise(generator, batch, channels, length),
        "delta_bias": 0.1 * noise(generator, channels).abs(),
        "initial_state": noise(generator, batch, channels, size),
    }
    if regime == "growing":
        given["A"] *= -1e-3
    if softplus:
        delta = given["delta"]
        given["delta"] = delta + torch.log(-torch.expm1(-delta))
        given["delta_bias"] *= 1e-7 if regime == "tiny" else 1
    given = {name: t for name, t in given.items() if name in (*SHAPES[:5], *OPTIONS[options])}
    if channels_last:
        given = {name: t.mT.contiguous().mT if t.ndim > 2 else t for name, t in given.items()}
    return {name: t.float().to(dtype).requires_grad_() for name, t in given.items()}


def results(given, *, seed=9, **options):
    """Output, last state and the gradients of a random weighting of both, by name; gradients of `given`, as d-name."""
    y, last = selective_scan(**given, return_last_state=True, **options)
    generator = torch.Generator().manual_seed(seed)
    loss = (y * noise(generator, *y.shape).to(y.dtype)).sum()
    loss = loss + (last * noise(generator, *last.shape).to(last.dtype)).sum()
    gradients = torch.autograd.grad(loss, list(given.values()))
    named = {f"d{name}": gradient for name, gradient in zip(given, gradients, strict=True)}
    return {"y": y.detach(), "last": last.detach(), **named}


def fixed(given):
    """The same tensors without gradients."""
    return {name: tensor.detach() for name, tensor in given.items()}
