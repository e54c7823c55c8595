"""Filling a model with somebody else's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from models import DiffusionTransformer, GenerativeTrunk, Trunk, VisionTransformer
from operators.errors import InputError
from tasks.config.start import Start
from tasks.system import checkpoint, results
from tasks.weights import dit, files, vit
from tasks.weights.state import Weights
from tasks.weights.vit import Normalisation

MARKS = {"vit": "patch_embed.proj.weight", "dit": "x_embedder.proj.weight", "own": "stem.weight"}
"""What the weights of each layout hold."""
OF_CLASSES = ("head.weight", "head.bias", "label.weight")
"""What depends on the classes, and stays as it is where these are others."""


def fill(model: Trunk, start: Start, mean: Sequence[float], std: Sequence[float]) -> None:
    """Give `model` the weights that `start` names, all but what belongs to other classes, and say what that was.

    Args:
        model: to be filled.
        start: not of the kind `run`.
        mean: of each channel of the images to come, by which they are normalised.
        std: their deviations.

    Raises:
        InputError: weights that cannot be had, or that the model cannot hold; with the overrides under which it could.
    """
    theirs = None
    if start.kind == "timm":
        state, config = files.hub(start.name, start.where)
        if "mean" in config and "std" in config:
            theirs = Normalisation(config["mean"], config["std"])
    else:
        state = files.read(start.name, start.where)
    if start.kind == "vit" and MARKS["own"] in state:
        checkpoint.load_weights(model, state, start.where)
        return
    own = _converted(model, start, state, theirs, Normalisation(mean, std))
    parameters = model.state_dict()
    left = [name for name in parameters if name not in own]
    wrong = [name for name in own if name not in parameters or own[name].shape != parameters[name].shape]
    if wrong or not set(left) <= set(OF_CLASSES):
        raise InputError(f"{start.where} does not fill this model: {', '.join([*wrong, *left][:3])}")
    model.load_state_dict(own, strict=False)
    if left:
        results.say(f"{start.where} is of other classes: {', '.join(left)} start at random")


def _converted(
    model: Trunk, start: Start, state: Mapping[str, Tensor], theirs: Normalisation | None, ours: Normalisation
) -> dict[str, Tensor]:
    weights = Weights(state, start.where)
    layout = next((name for name, mark in MARKS.items() if mark in weights), None)
    wanted = "dit" if start.kind in dit.TIME_SCALES else "vit"
    if layout is None:
        raise InputError(f"{start.where} is of no layout that is known here: timm's ViTs, DiT, SiT, tasks.export")
    if layout == "dit" and wanted == "vit":
        raise InputError(
            f"{start.where} looks like DiT's or SiT's weights, which look alike: give init=dit:FILE or init=sit:FILE"
        )
    if layout != wanted:
        raise InputError(f"{start.where} is in timm's layout of ViTs, not in that of {start.kind}: give init=FILE")
    if isinstance(model, GenerativeTrunk):
        if wanted == "vit":
            raise InputError(f"{start.where} are the weights of a classifier, and this model is a generator")
        if not isinstance(model, DiffusionTransformer):
            raise InputError(f"{start.where} is in the layout of DiT and SiT, and this model is U-shaped")
        return dit.convert(weights, model, "dit" if start.kind == "dit" else "sit")
    if not isinstance(model, VisionTransformer):
        raise InputError(f"{start.where} is in timm's layout of ViTs, and this model is a pyramid")
    return vit.convert(weights, model, theirs, ours)
