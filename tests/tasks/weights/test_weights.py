from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import models
from operators import InputError
from tasks.config import start
from tasks.config.composition import compose
from tasks.config.task import ClassificationConfig, GenerationConfig
from tasks.flow import paths
from tasks.weights import dit, files
from tasks.weights.start import fill
from tests.tasks.conftest import Fit
from tests.tasks.weights import layouts

NEUTRAL = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def double(state: layouts.State) -> layouts.State:
    return {name: value.double() for name, value in state.items()}


def built(
    name: str, size: tuple[int, int], heads: int = 3, channels: int = 3, classes: int = 5, **spec: Any
) -> models.Trunk:
    mixer = models.MixerSpec("attention", {"heads": heads}, shell="published")
    return models.create(
        name,
        **{"mixers": mixer, "dim": 24, "depth": 2, **spec},
        image_size=size,
        in_channels=channels,
        num_classes=classes,
    ).eval()


def vit(size: tuple[int, int] = (8, 12), **spec: Any) -> models.Trunk:
    return built("vit_nano", size, **{"patch": 4, "hidden": 40, "pooling": "class", **spec})


def generator(kind: str, size: tuple[int, int] = (4, 6), **spec: Any) -> models.Trunk:
    scale = {"dit": 1000, "sit": 1}[kind]
    own = {"patch": 2, "positions": "learned", "gelu": "tanh", "time_scale": scale}
    return built("dit_nano", size, **{**own, **spec})


def filled(model: models.Trunk, state: layouts.State, tmp_path: Path, prefix: str = "", **shape: Any) -> models.Trunk:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    model.double()  # so that nothing is rounded
    fill(model, start.parse(f"{prefix}{path}"), **{**NEUTRAL, **shape})
    return model


def refused(function: Any) -> str:
    with pytest.raises(InputError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def close(given: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-9)


def test_vit_with_a_class_token_computes_the_same(tmp_path: Path) -> None:
    state = layouts.vit_state()
    images = torch.randn(3, 3, 8, 12, dtype=torch.float64)
    close(filled(vit(), state, tmp_path)(images), layouts.vit(double(state), images, 3, 2))


def test_vit_whose_class_token_has_no_position_computes_the_same(tmp_path: Path) -> None:
    state = layouts.vit_state(tokens=9)
    state["pos_embed"] = state["pos_embed"][:, 1:].contiguous()
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    close(filled(vit((12, 12)), state, tmp_path)(images), layouts.vit(double(state), images, 3, 2))


def test_vit_that_reads_the_mean_computes_the_same(tmp_path: Path) -> None:
    state = layouts.vit_state()
    del state["cls_token"]
    state["pos_embed"] = state["pos_embed"][:, 1:].contiguous()
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    close(filled(vit(pooling="mean"), state, tmp_path)(images), layouts.vit(double(state), images, 3, 2))


@pytest.mark.parametrize("names", [("ls1.gamma", "ls2.gamma"), ("gamma_1", "gamma_2")])
def test_layer_scale_is_multiplied_in(names: tuple[str, str], tmp_path: Path) -> None:
    state = layouts.vit_state()
    gammas = {f"blocks.{i}.{name}": torch.rand(24) + 0.5 for i in range(2) for name in names}
    plain = {f"blocks.{i}.ls{n}.gamma": gammas[f"blocks.{i}.{names[n - 1]}"] for i in range(2) for n in (1, 2)}
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    expected = layouts.vit(double(state | plain), images, 3, 2)
    close(filled(vit(), state | gammas, tmp_path)(images), expected)


def test_positions_are_interpolated_to_other_grids(tmp_path: Path) -> None:
    state = layouts.vit_state(tokens=16)
    first, positions = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    planes = positions.reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(planes, (5, 3), mode="bicubic", antialias=True)
    expected = {**state, "pos_embed": torch.cat([first, resized.permute(0, 2, 3, 1).reshape(1, 15, 24)], dim=1)}
    images = torch.randn(2, 3, 20, 12, dtype=torch.float64)
    close(filled(vit((20, 12)), state, tmp_path)(images), layouts.vit(double(expected), images, 3, 2))


def test_positions_of_no_square_and_of_another_grid_are_refused(tmp_path: Path) -> None:
    assert "7 positions" in refused(lambda: filled(vit((12, 12)), layouts.vit_state(tokens=6), tmp_path))


@pytest.mark.parametrize("kind", ["dit", "sit"])
@pytest.mark.parametrize("sigma", [True, False])
def test_generators_compute_the_same(kind: str, sigma: bool, tmp_path: Path) -> None:
    state = layouts.dit_state(sigma=sigma)
    model = filled(generator(kind), state, tmp_path, f"{kind}:")
    x, time = torch.randn(4, 3, 4, 6, dtype=torch.float64), torch.tensor([0.0, 0.3, 0.77, 1.0], dtype=torch.float64)
    label = torch.tensor([0, 4, 5, 2])
    step = time if kind == "sit" else 999 - 1000 * time
    expected = layouts.dit(double(state), x, step, label, 3, 2)
    assert expected.shape[1] == (6 if sigma else 3)
    given = model(x, time, label)
    assert expected[:, :3].std() > 0.1
    torch.testing.assert_close(given, expected[:, :3], rtol=1e-9, atol=1e-9)


def test_reversal_of_time_is_exact() -> None:
    weight = torch.randn(5, 256)
    time = torch.rand(50, dtype=torch.float64)
    omega = torch.tensor([10000 ** (-k / 128) for k in range(128)], dtype=torch.float64)

    def waves(step: Tensor) -> Tensor:
        return torch.cat([(step[:, None] * omega).cos(), (step[:, None] * omega).sin()], dim=1)

    expected = waves(999 - 1000 * time) @ weight.double().T
    torch.testing.assert_close(waves(1000 * time) @ dit.reversed_time(weight).T, expected, rtol=0, atol=1e-10)


def test_steps_of_dit_are_times_of_the_vp_path() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # arXiv 2006.11239, section 4
    alpha = (1 - betas).cumprod(0).sqrt()
    time = (999 - torch.arange(1000, dtype=torch.float64)) / 1000
    torch.testing.assert_close(paths.get("vp").alpha(time), alpha, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"pooling": "mean"}, ["model.pooling=class"]),
        ({"hidden": 96, "depth": 3}, ["model.hidden=40", "model.depth=2"]),
        ({"patch": 2, "norm": "rms"}, ["model.patch=4", "model.norm=layer"]),
        ({"positions": "sincos", "gelu": "tanh"}, ["model.positions=learned", "model.gelu=exact"]),
        ({"mixers": models.MixerSpec("attention")}, ["shell=published"]),
        (
            {"mixers": models.MixerSpec("attention", {"qk_norm": True, "bias": False}, "published")},
            ["mixer.qk_norm=false", "mixer.bias=true"],
        ),
        ({"mixers": models.MixerSpec("pool"), "pooling": "mean"}, ["mixer=attention", "shell=published"]),
    ],
)
def test_model_that_cannot_hold_the_weights_is_refused_with_the_overrides(
    spec: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    message = refused(lambda: filled(vit(**spec), layouts.vit_state(), tmp_path))
    assert all(name in message for name in named), message


def test_published_heads_are_asked_for(tmp_path: Path) -> None:
    state = layouts.vit_state(dim=192, depth=1)
    message = refused(lambda: filled(vit(dim=192, depth=1, heads=6), state, tmp_path))
    assert "mixer.heads=3" in message


@pytest.mark.parametrize("kind", ["dit", "sit"])
def test_generator_that_cannot_hold_the_weights_is_refused(kind: str, tmp_path: Path) -> None:
    plain = {"gelu": "exact", "positions": "sincos", "time_scale": 7}
    message = refused(lambda: filled(generator(kind, **plain), layouts.dit_state(), tmp_path, f"{kind}:"))
    scale = {"dit": 1000, "sit": 1}[kind]
    for name in ("model.gelu=tanh", "model.positions=learned", f"model.time_scale={scale}"):
        assert name in message


@pytest.mark.parametrize(
    ("name", "reason"),
    [("dist_token", "distillation"), ("fc_norm.weight", "pooling"), ("blocks.0.attn.q_norm.weight", "biases"),
     ("what.is.this", "no place")],
)  # fmt: skip
def test_parts_without_a_place_are_refused(name: str, reason: str, tmp_path: Path) -> None:
    state = layouts.vit_state() | {name: torch.zeros(1)}
    message = refused(lambda: filled(vit(), state, tmp_path))
    assert name in message
    assert reason in message


def test_weights_that_are_not_finite_or_missing_are_refused(tmp_path: Path) -> None:
    state = layouts.vit_state()
    broken = {**state, "norm.bias": torch.full((24,), math.nan)}
    assert "norm.bias is not finite" in refused(lambda: filled(vit(), broken, tmp_path))
    short = {name: value for name, value in state.items() if name != "blocks.1.norm2.bias"}
    assert "has no blocks.1.norm2.bias" in refused(lambda: filled(vit(), short, tmp_path))


def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    message = refused(lambda: filled(vit(channels=1), layouts.vit_state(), tmp_path))
    assert "3 channels" in message


def test_other_classes_leave_the_head_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = vit(classes=7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    filled(model, layouts.vit_state(), tmp_path)
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name].double())}
    assert same == {"head.weight", "head.bias"}
    assert "head.weight, head.bias start at random" in "".join(capsys.readouterr())
    model = generator("sit", classes=7)
    label = model.state_dict()["label.weight"].clone()
    filled(model, layouts.dit_state(), tmp_path, "sit:")
    assert torch.equal(model.state_dict()["label.weight"], label.double())


def test_layouts_are_not_taken_for_one_another(tmp_path: Path) -> None:
    message = refused(lambda: filled(vit(), layouts.dit_state(), tmp_path))
    assert "init=dit:FILE or init=sit:FILE" in message
    assert "timm's layout" in refused(lambda: filled(generator("dit"), layouts.vit_state(), tmp_path, "dit:"))
    assert "no layout" in refused(lambda: filled(vit(), {"x": torch.zeros(2)}, tmp_path))


@pytest.mark.parametrize("wrap", ["model", "ema", "state_dict"])
def test_files_of_training_scripts_are_read(wrap: str, tmp_path: Path) -> None:
    state = layouts.vit_state()
    other = {name: value + 1 for name, value in state.items()}
    content = {"model": other, wrap: state, "args": argparse.Namespace(lr=1), "epoch": 3}
    if wrap == "state_dict":
        del content["model"]
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    read = files.read(str(path), "init=x")
    assert all(torch.equal(read[name], value) for name, value in state.items())


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
        assert "not a readable file" in refused(lambda name=name: files.read(str(tmp_path / name), "init=x"))
    torch.save({"a": 3}, tmp_path / "b.pth")
    assert "not a tensor" in refused(lambda: files.read(str(tmp_path / "b.pth"), "init=x"))
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "c.pth")
    assert "more in it than weights" in refused(lambda: files.read(str(tmp_path / "c.pth"), "init=x"))


def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: layouts.State, config: dict[str, Any]) -> None:
    """The Hub holds these."""
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": config}))

    def download(repository: str, name: str) -> str:
        assert repository == "timm/small.test"
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


def test_timm_name_takes_the_hubs_weights_for_images_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    state = layouts.vit_state()
    published(tmp_path, monkeypatch, state, {"mean": mean, "std": std})
    model = vit().double()
    ours = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    fill(model, start.parse("timm:small.test"), **ours)
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)

    def normalised(mean: Any, std: Any) -> Tensor:
        middle, spread = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std))
        return (images - middle) / spread

    expected = layouts.vit(double(state), normalised(mean, std), 3, 2)
    close(model(normalised(*ours.values())), expected)


def test_timm_name_without_a_way_to_the_hub_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refused(lambda: fill(vit(), start.parse("timm:deit_tiny_patch16_224.fb_in1k"), **NEUTRAL))
    assert "cannot be reached" in message
    assert "give init=FILE" in message


@pytest.mark.parametrize(
    ("init", "task", "reason"),
    [
        ("timm:no such model", ClassificationConfig(), "not the name of a model"),
        ("timm:deit_tiny_patch16_224.fb_in1k", GenerationConfig(), "starts a classifier"),
        ("dit:/nowhere/x.pt", GenerationConfig(), "does not exist"),
        ("/nowhere/x.pth", ClassificationConfig(), "does not exist"),
        (f"dit:{__file__}", ClassificationConfig(), "task=generation"),
        (f"dit:{__file__}", GenerationConfig(), "task.prediction=noise task.path=vp"),
        (f"sit:{__file__}", GenerationConfig(prediction="noise"), "task.prediction=velocity task.path=linear"),
    ],
)
def test_start_that_cannot_be_is_refused_before_anything_is_read(init: str, task: Any, reason: str) -> None:
    assert reason in refused(lambda: start.check(init, task))


def test_run_starts_from_a_file(fit: Fit, tmp_path: Path) -> None:
    state = layouts.vit_state(dim=16, depth=1, patch=4, tokens=49, channels=1, classes=10, hidden=64)
    path = tmp_path / "timm.safetensors"
    save_file(state, path)
    overrides = ("mixer=attention", "mixer.heads=2", "shell=published", "model.pooling=class", "optimizer.lr=0")
    metrics = fit("run", *overrides, f"init={path}", "optimizer.weight_decay=0")
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["model.head.weight"], state["head.weight"])
    assert metrics["status"] == "ok"
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["init"] == str(path)
    # and it is a run of the same model that goes on from there
    assert compose([*overrides, "model.dim=16", "model.depth=1", f"init={path}"])["init"] == str(path)
