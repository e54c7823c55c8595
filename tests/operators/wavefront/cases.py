"""The recurrences over a grid, arguments for them, and their outputs with the gradients of all arguments."""

from functools import partial

import torch

from operators import wavefront

SCANS = {
    "lattice": (wavefront.lattice_scan, wavefront.LATTICE),
    "two_step": (wavefront.two_step_scan, wavefront.TWO_STEP),
    "roesser": (partial(wavefront.roesser_scan, coupling=0.3), wavefront.ROESSER),
}
GRIDS = ((5, 7), (4, 4), (1, 6), (9, 1), (1, 1), (19, 3))
ENGINES = ("diagonals", "cpu")


def noise(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def arguments(name, grid=(5, 7), *, batch=2, channels=3, size=4, dtype=torch.float64, seed=0):
    """Tensors by name, all wanting gradients; drawn in float64 and rounded through float32, so equal in both types."""
    op = SCANS[name][1].compiled
    generator = torch.Generator().manual_seed(seed)
    first = {"u": torch.empty(batch, *grid, channels), op.rates: torch.empty(channels, size)}
    given = {}
    for each in op.tensors:
        drawn = noise(generator, *op.shapes(first)[each])
        if each.startswith("dt"):
            drawn = 0.05 + drawn.abs()
        given[each] = -drawn.exp() if each.startswith("A") else drawn
    return {each: tensor.float().to(dtype).requires_grad_() for each, tensor in given.items()}


def results(name, given, **options):
    """Output and the gradients of a random weighting of it, by name."""
    y = SCANS[name][0](**given, **options)
    weight = noise(torch.Generator().manual_seed(9), *y.shape).to(y.dtype)
    gradients = torch.autograd.grad(y, list(given.values()), weight, allow_unused=True, materialize_grads=True)
    return {"y": y.detach(), **{f"d{each}": part for each, part in zip(given, gradients, strict=True)}}


def fixed(given):
    """The same tensors without gradients."""
    return {each: tensor.detach() for each, tensor in given.items()}
