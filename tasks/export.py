"""`python -m tasks.export CKPT OUT.safetensors`: the weights of a checkpoint for use elsewhere, and reading them back.

    from tasks.export import load
    model = load("model.safetensors")
    y = model(x)

The file holds what is tested and sampled from (the average where the run kept one) as it was when the checkpoint was
written; `best.ckpt` is the best on validation. Its header holds, as JSON under `operator_zoo`, the format's `version`,
the run's `config`, the `data` that the model was made for (with the mean and deviation that normalise it), and the
validation `scores`.
"""

from __future__ import annotations

from operators.command_line import begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from operators.errors import InputError
from tasks.system import atomic_files, environment
from tasks.system.atomic_files import KEY
from tasks.system.failure import FAILED, explain

if TYPE_CHECKING:
    import torch

    import models

VERSION = 1
SUFFIX = ".safetensors"
_PREFIX = "model."
_USAGE = "usage: python -m tasks.export RUN/checkpoints/best.ckpt OUT.safetensors\n"


def export(ckpt: str | Path, out: str | Path) -> None:
    """Write the model of a checkpoint to the new file `out`, whole or not at all.

    Raises:
        InputError: no such checkpoint, or `out` exists, cannot be written, or is named as if it were of another format.
    """
    target = Path(out)
    if target.is_dir():
        raise InputError(f"{target} is a directory: give the name of a new file that ends in {SUFFIX}")
    if target.suffix != SUFFIX:
        stem = target.with_suffix("")
        meant = stem if stem.suffix == SUFFIX else stem.with_name(f"{stem.name}{SUFFIX}")
        raise InputError(f"{target} must end in {SUFFIX}, the only format written; did you mean {str(meant)!r}?")
    if target.exists():
        raise InputError(f"{target} exists: remove it, or choose another name")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is not a directory")
    if not Path(ckpt).exists():
        raise InputError(f"ckpt={ckpt} does not exist")

    # What follows takes seconds to import, for which wrong input need not wait.
    from safetensors.torch import save

    from tasks.system import checkpoint

    content = checkpoint.load(ckpt)
    model = _build(content[KEY], f"ckpt={ckpt}", "meta")
    state = content["state_dict"]
    weights = {name.removeprefix(_PREFIX): state[name].contiguous() for name in state if name.startswith(_PREFIX)}
    checkpoint.check_weights(model, weights, f"ckpt={ckpt}")
    recorded = {"version": VERSION, **{key: content[KEY][key] for key in ("config", "data", "scores")}}
    # Tensors that share memory, which the format refuses, are none of the models'.
    packed = save(weights, metadata={KEY: json.dumps(recorded)})
    try:
        with atomic_files.replacing(target) as file:
            file.write(packed)
    except OSError as error:
        if atomic_files.full(error):
            raise
        raise InputError(f"{target} cannot be written: {error.strerror}") from error


def describe(path: str | Path) -> dict[str, Any]:
    """What the file says about itself: `version`, `config`, `data` and `scores`.

    Raises:
        InputError: not a file that `export` has written, or one of a later version.
    """
    return _read(path)[0]


def load(path: str | Path, device: str | torch.device = "cpu") -> models.Trunk:
    """The model of an exported file, in evaluation mode: the same outputs as in its run, bit by bit.

    A classifier maps images (B, C, H, W), normalised as `describe(path)["data"]` says, to logits; a generator maps
    (x, time, label), where images lie in [-1, 1], to its prediction. Where it works in latents, x are latents, scaled
    as `tasks.autoencoder` does, of the autoencoder that the configuration names.

    Raises:
        InputError: as `describe`, or weights that do not fit the configuration.
    """
    from tasks.system import checkpoint

    recorded, weights = _read(path)
    try:
        claimed = _build(recorded, str(path), "meta")  # takes no memory, whatever sizes the file claims
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} does not say which model it holds") from error
    checkpoint.check_weights(claimed, weights, str(path))
    model = _build(recorded, str(path), "cpu")
    # Assigned, not copied: in the type in which they were trained.
    model.load_state_dict(weights, assign=True)
    return model.to(device).eval()


def _build(recorded: Mapping[str, Any], where: str, device: str) -> models.Trunk:
    from tasks.config.images import Images
    from tasks.system import checkpoint

    run = checkpoint.check_config(recorded["config"], where)
    return run.build(Images.recorded(recorded["data"]), device=device)


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not Path(path).is_file():
        raise InputError(f"{path} {'is a directory' if Path(path).is_dir() else 'does not exist'}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: damaged, cut off, or of another kind") from error
    try:
        recorded = json.loads(header[KEY])
        version = recorded["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} was not exported by this program") from error
    if version != VERSION:
        raise InputError(f"{path} has version {version!r} of the format; this program reads {VERSION}")
    return cast(dict[str, Any], recorded), weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Export as the command line says; exit status 0, or 2 for wrong input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return 0
    if len(given) != 2:
        sys.stderr.write(_USAGE)
        return 2
    try:
        environment.check()
        export(*given)
    except (InputError, OSError) as error:
        if isinstance(error, OSError) and atomic_files.full(error):
            sys.stderr.write(f"error: {given[1]}: {error.strerror}\n")
            return FAILED
        status, text = explain(error)
        sys.stderr.write(f"{text}\n")
        return status
    sys.stdout.write(f"{given[1]}: {os.path.getsize(given[1]) / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    conclude(main)
