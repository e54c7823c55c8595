"""Reading files of weights, here or on the Hugging Face Hub, without running what is in them."""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError

_DAMAGE = (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, KeyError, ValueError)
_INSIDE = ("ema", "model", "state_dict")
"""Under which training scripts put the weights beside other things; the average first, as those who publish it do."""


def read(path: str, where: str) -> dict[str, Tensor]:
    """The weights in a file by name, on the CPU.

    Raises:
        InputError: it cannot be read, or holds something other than weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # options that training scripts save
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGE, OSError, SafetensorError) as error:
        raise InputError(
            f"{where} is not a readable file of weights: damaged, of another kind, or with more in it than weights "
            "(then save its state dict alone, or as .safetensors)"
        ) from error
    return _weights(content, where)


def _weights(content: Any, where: str) -> dict[str, Tensor]:
    for name in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{where} holds no weights by name")
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{where}: under {name!r} it has {type(value).__name__}, not a tensor")
        state[name.removeprefix("module.")] = value
    return state


def hub(name: str, where: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Weights and `pretrained_cfg` of a model of timm's, from the Hub or its local cache; timm itself is not needed.

    Raises:
        InputError: there is no such model, or no way to it.
    """
    from huggingface_hub import errors, hf_hub_download

    repository = f"timm/{name}"
    try:
        with _quiet():
            config = json.loads(Path(hf_hub_download(repository, "config.json")).read_text(encoding="utf-8"))
            path = hf_hub_download(repository, "model.safetensors")
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.GatedRepoError) as error:
        if not isinstance(error, errors.LocalEntryNotFoundError):
            raise InputError(
                f"{where}: the Hugging Face Hub has no model.safetensors in {repository}; names are listed at "
                "huggingface.co/timm, each with what it was trained on, as deit_small_patch16_224.fb_in1k"
            ) from error
        raise InputError(_unreachable(where, repository)) from error
    except (OSError, errors.HfHubHTTPError, errors.OfflineModeIsEnabled) as error:
        raise InputError(_unreachable(where, repository)) from error
    return read(path, where), config.get("pretrained_cfg", {})


@contextmanager
def _quiet() -> Iterator[None]:
    """Its client tells of every try."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unreachable(where: str, repository: str) -> str:
    return (
        f"{where}: {repository} is not in the local cache and the Hugging Face Hub cannot be reached; download its "
        "model.safetensors elsewhere and give init=FILE"
    )
