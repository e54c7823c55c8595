"""Small autoencoders of both kinds are kept in folders, with photographs and a run that learns their latents."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tasks.data.photographs import write_folder

KINDS = ("kl", "tiny")
CHANNELS = {"kl": 3, "tiny": 5}


@pytest.fixture(scope="session", autouse=True)
def diffusers() -> Any:
    """The package, without which the tests of this folder are skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diffusers")


def make(kind: str, seed: int = 0, **config: Any) -> Any:
    """Reduces images by 4; scaled and shifted."""
    import diffusers

    torch.manual_seed(seed)
    if kind == "tiny":
        widths, blocks = (8, 8, 8), (1, 1, 1)
        return diffusers.AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
            latent_channels=CHANNELS[kind],
            **{"scaling_factor": 1.5, **config},
        )
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        latent_channels=CHANNELS[kind],
        **{"scaling_factor": 0.7, "shift_factor": 0.2, **config},
    )


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("autoencoders")
    for kind in KINDS:
        make(kind).save_pretrained(root / kind)
    make("kl", seed=1).save_pretrained(root / "other")
    return {name: str(root / name) for name in (*KINDS, "other")}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def images(count: int = 5, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("photographs"), {"train": 6, "val": 2, "test": 2})


@pytest.fixture
def overrides(photographs: Path) -> Callable[[str], list[str]]:
    def given(path: str) -> list[str]:
        data = ["data=image_folder", f"data.root={photographs}", "data.resolution=16", "data.batch_size=6"]
        model = ["mixer=pool", "model.dim=16", "model.depth=1", "model.patch=2", "sample.n=3"]
        common = ["trainer=smoke", "trainer.accelerator=cpu", "logger=none"]
        return ["task=generation", f"task.autoencoder={path}", *data, *model, *common]

    return given
