"""Autoencoders that cannot be had, and images that they do not take, are refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operators import InputError
from tasks import autoencoder
from tasks.config.composition import compose
from tasks.run.execute import execute


def refusal(function: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refused_images(folders: dict[str, str], overrides: Callable[[str], list[str]], tmp_path: Path) -> None:
    coder = autoencoder.load(folders["kl"])
    assert "encodes images of 3 channels, not of 1" in refusal(lambda: coder.geometry.shape(1, 28, 28))
    config = compose([*overrides(folders["kl"]), "data.resolution=18"])
    line = refusal(lambda: execute(config, tmp_path / "run"))
    assert "data.resolution=18 must be a multiple of 4" in line
    assert "try 16" in line


def test_refused_folders(tmp_path: Path, folders: dict[str, str]) -> None:
    assert "is no folder, no Hub id such as" in refusal(lambda: autoencoder.load("/nowhere/at/all"))
    assert "lacks config.json" in refusal(lambda: autoencoder.load(str(tmp_path)))
    damaged = shutil.copytree(folders["kl"], tmp_path / "damaged")
    file, config = damaged / "diffusion_pytorch_model.safetensors", damaged / "config.json"
    text = json.loads(config.read_text())
    config.write_text(json.dumps({**text, "_class_name": "UNet2DModel"}))
    line = refusal(lambda: autoencoder.load(str(damaged)))
    assert "holds UNet2DModel: allowed are AutoencoderKL, AutoencoderTiny" in line
    for change in ({"block_out_channels": [4, 4, 6]}, {"layers_per_block": 2}, {"layers_per_block": 0}):
        config.write_text(json.dumps({**text, **change}))
        assert "cannot be read as AutoencoderKL" in refusal(lambda: autoencoder.load(str(damaged))), change
    config.write_text(json.dumps(text))
    file.write_bytes(file.read_bytes()[:1000])
    assert str(damaged) in refusal(lambda: autoencoder.load(str(damaged)))
    file.unlink()
    assert "lacks config.json or safetensors" in refusal(lambda: autoencoder.load(str(damaged)))
    config.write_text("{")
    assert "lacks config.json" in refusal(lambda: autoencoder.load(str(damaged)))


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    line = refusal(lambda: autoencoder.load("nobody/has-this"))
    assert "nobody/has-this is no folder here, and could not be fetched from the Hugging Face Hub" in line
    assert "give a folder" in line


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert 'pip install "operator-zoo[latents]"' in refusal(lambda: autoencoder.load("random"))


@pytest.mark.parametrize("value", ["3", "[a]"])
def test_refused_values(value: str) -> None:
    line = refusal(lambda: compose(["task=generation", f"task.autoencoder={value}"]))
    assert "must be a folder, a Hub id, random or null" in line
