"""`python -m operators.show CKPT`: every mixer of a checkpoint's model as pictures, at initialisation and trained.

Also the pictures of a run's logger: `Witness` notes what each mixer of a trunk is given, `layers` makes of it what
`operators.show` draws.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

import models
from operators import Mixer
from operators.benchmark import plots
from operators.errors import InputError, check_number
from operators.show import page
from operators.show.__main__ import PROGRAM, of_card
from operators.show.layers import START, TRAINED, Layer, State
from tasks.config.images import Images
from tasks.config.overrides import run_directory
from tasks.system import checkpoint

PREFIX = "model."
"""Of the names of a model's weights in a checkpoint."""
TIME, LABEL = 0.5, 0
"""Of the noisy image that a generator is given."""


class Witness:
    """While open, notes the tokens (H, W, C) and the vector of the first image that each mixer is given.

    Args:
        mixers: first block first.
    """

    def __init__(self, mixers: Sequence[Mixer]) -> None:
        self._mixers = mixers
        self._given: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Witness:
        for number, mixer in enumerate(self._mixers):

            def note(_: nn.Module, given: Any, named: Any, number: int = number) -> None:
                cond = named.get("cond") if len(given) < 2 else given[1]
                self._given[number] = given[0][0].detach(), None if cond is None else cond[0].detach()

            self._hooks.append(mixer.register_forward_pre_hook(note, with_kwargs=True))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def states(self, name: str) -> list[State]:
        """The mixers with what they were given, in the type of their parameters; `name` is of this time."""
        states = []
        for number, mixer in enumerate(self._mixers):
            kind = next((p.dtype for p in mixer.parameters() if p.is_floating_point()), torch.float32)
            # Cloned: what inference mode has made serves no gradient.
            x, cond = (None if given is None else given.to(kind).clone() for given in self._given[number])
            assert x is not None
            states.append(State(name, mixer, x, cond))
        return states


def layers(trunk: models.Trunk, *times: Sequence[State]) -> list[Layer]:
    """The layers of a trunk, from the states of its mixers at some times, which were given images of its size."""
    made = []
    for number, (mixer, *states) in enumerate(zip(trunk.mixers, *times, strict=True)):
        rows, columns = states[0].grid
        pixels = trunk.image_size[0] / rows, trunk.image_size[1] / columns
        made.append(Layer(f"layer {number}: {mixer.card.name}", states, pixels))
    return made


def watched(trunk: models.Trunk, image: Tensor, name: str) -> list[State]:
    """The mixers of a trunk with what they are given of an image (C, H, W)."""
    more = (torch.tensor([TIME]), torch.tensor([LABEL])) if isinstance(trunk, models.GenerativeTrunk) else ()
    trunk.eval()
    with Witness(trunk.mixers) as witness, torch.no_grad():
        dtype = next(trunk.parameters()).dtype
        trunk(image[None].to(dtype), *(each.to(dtype) if each.is_floating_point() else each for each in more))
    return witness.states(name)


def read(path: str, picture: Path | None, seed: int) -> tuple[list[Layer], dict[str, str]]:
    """The layers of a checkpoint and what is to be said of it.

    Args:
        path: of the checkpoint.
        picture: file with the image that the model is given; None for normal noise.
        seed: of the noise.

    Raises:
        InputError: no checkpoint of a run, or no picture that can be read.
    """
    content = checkpoint.load(path)
    entry = content[checkpoint.KEY]
    run = checkpoint.check_config(entry["config"], f"ckpt={path}")
    images = Images.recorded(entry["data"])
    start, trained = run.build(images), run.build(images)
    state = content["state_dict"]
    weights = {name.removeprefix(PREFIX): state[name] for name in state if name.startswith(PREFIX)}
    checkpoint.load_weights(trained, weights, f"ckpt={path}")
    if picture is None:
        image = torch.randn(images.input, generator=torch.Generator().manual_seed(seed))
    else:
        image = opened(picture, images, generator=isinstance(trained, models.GenerativeTrunk))
    times = [watched(model, image, name) for model, name in ((start, START), (trained, TRAINED))]
    cards = {mixer.card.name: mixer.card for mixer in trained.mixers}
    facts = {
        "checkpoint": f"{path}, epoch {content['epoch']}, step {content['global_step']}",
        "model": f"{run.model['name']}, {run.shell} shell, {run.task.name} on {run.data['name']}, seed {run.seed}",
        **{f"{name}: {key}": text for name, card in cards.items() for key, text in of_card(card).items()},
        "given": f"an image of normal noise (seed {seed})" if picture is None else str(picture),
    }
    return layers(trained, *times), facts


def opened(path: Path, images: Images, *, generator: bool) -> Tensor:
    """An image in a file as the model takes it, (C, H, W): normalised, or, as a generator learns it, in [-1, 1].

    Raises:
        InputError: no image that can be read, or a model of latents.
    """
    if images.input != (images.channels, *images.image_size):
        raise InputError(f"image: {path} cannot be shown to a model that works on latents: leave it out")
    try:
        with Image.open(path) as file:
            picture = file.convert("L" if images.channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"image: {path} cannot be read: {error}") from error
    height, width = images.image_size
    pixels = torch.from_numpy(np.array(picture.resize((width, height)))).float() / 255
    pixels = pixels[None] if images.channels == 1 else pixels.movedim(-1, 0)
    if generator:
        return 2 * pixels - 1
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (images.mean, images.std))
    return (pixels - mean) / deviation


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0, or 2 for wrong input, explained in one line."""
    parser = Parser(prog=PROGRAM, description="Draw the mixers of a checkpoint, at initialisation and trained.")
    parser.add_argument("ckpt", metavar="CKPT", help="a run's checkpoints/best.ckpt")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (pictures, in the run's directory)")
    parser.add_argument("--image", type=Path, metavar="FILE", help="what the model is given (normal noise)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (%(default)s)")
    try:
        options = parser.parse_args(argv)
        check_number("seed", options.seed, least=0, most=2**32 - 1, integer=True)
        refusal = plots.unavailable()
        if refusal:
            raise InputError(refusal)
        drawn, facts = read(options.ckpt, options.image, options.seed)
        out = options.out or run_directory(Path(options.ckpt)) / "pictures"
        written = page.write(out, f"Mixers of {options.ckpt}", facts, list(page.sections(drawn)))
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    conclude(main)
