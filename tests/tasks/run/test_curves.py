"""What a run's logger gets, read back from TensorBoard's files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tasks import optim
from tasks.config.composition import compose
from tasks.run import curves
from tasks.run.execute import execute
from tests.tasks.conftest import TINY, Fit

CURVES = ("mixer=pool", "logger=tensorboard", "logger.every=1", "trainer.max_steps=3")


class Norms(Callback):
    """The norm of the gradient of every step before it is clipped, and the images of the first step."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.images: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.norms.append(float(sum((p.grad**2).sum() for p in module.parameters() if p.grad is not None) ** 0.5))
        self.images.append(module.mix(module._last)["image"] if "mix" in module._last else module._last["image"])


def events(folder: Path) -> dict[str, EventAccumulator]:
    """An accumulator for each tag; a run writes several files."""
    found = {}
    for path in sorted(folder.glob("events.out.*")):
        read = EventAccumulator(str(path))
        read.Reload()
        tags = read.Tags()
        found.update(dict.fromkeys([*tags["scalars"], *tags["images"], *read.summary_metadata], read))
    return found


@pytest.fixture(scope="module")
def curve_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Norms, dict[str, EventAccumulator]]:
    folder, norms = tmp_path_factory.mktemp("curves") / "run", Norms()
    config = compose([*TINY, *CURVES, "trainer.clip=0.01"])
    execute(config, folder, callbacks=[norms, curves.Settings(config)])
    return folder, norms, events(folder)


def test_gradient_norm_is_the_one_before_clipping(curve_run: Any) -> None:
    _, norms, found = curve_run
    points = [event.value for event in found["train/gradient_norm"].Scalars("train/gradient_norm")]
    assert points == pytest.approx(norms.norms, rel=1e-5)
    assert min(points) > 0.01


def test_rate_and_training_accuracy_have_a_curve(curve_run: Any) -> None:
    _, _, found = curve_run
    rates = [event.value for event in found["lr"].Scalars("lr")]
    assert rates == pytest.approx([0.002, 0.0015, 0.0005], rel=1e-2)
    assert not any(tag.startswith("lr") and tag != "lr" for tag in found)
    accuracies = [event.value for event in found["train/accuracy"].Scalars("train/accuracy")]
    assert len(accuracies) == 3
    assert all(0 <= value <= 1 and value * 32 == pytest.approx(round(value * 32)) for value in accuracies)


def test_inputs_are_those_of_the_first_step(curve_run: Any) -> None:
    _, norms, found = curve_run
    (event,) = found["inputs"].Images("inputs")
    with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
        shown = np.asarray(picture)
    images = norms.images[0]
    times = shown.shape[1] // (curves.COLUMNS * (images.shape[-1] + 1))
    first = shown[: images.shape[-2] * times : times, : images.shape[-1] * times : times, 0].astype(float)
    original = images[0, 0].numpy()
    assert np.corrcoef(first.flatten(), original.flatten())[0, 1] > 0.9999
    assert (first.min(), first.max()) == (0, 255)


def test_settings_stand_beside_the_scores(curve_run: Any) -> None:
    _, _, found = curve_run
    contents = {
        kind: HParamsPluginData.FromString(
            found[f"_hparams_/{kind}"].summary_metadata[f"_hparams_/{kind}"].plugin_data.content
        )
        for kind in ("experiment", "session_start_info")
    }
    settings = contents["session_start_info"].session_start_info.hparams
    assert settings["mixer.name"].string_value == "pool"
    assert settings["optimizer.lr"].number_value == 0.002
    assert settings["trainer.save_every"].string_value == "null"
    scores = {info.name.tag for info in contents["experiment"].experiment.metric_infos}
    assert "test/accuracy" in scores & found.keys()
    assert "hp_metric" not in found


def test_curves_change_no_result(curve_run: Any, fit: Fit, tmp_path: Path) -> None:
    folder, _, _ = curve_run
    fit("bare", "trainer.max_steps=3", "trainer.clip=0.01")
    one, other = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (folder, tmp_path / "bare")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_continued_run_shows_its_inputs_once(fit: Fit, tmp_path: Path) -> None:
    fit("run", *CURVES, "+trainer.limit_train_batches=3")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    fit("run", *CURVES, "+trainer.limit_train_batches=3", "trainer.max_steps=6", "trainer.max_epochs=2", f"ckpt={last}")
    shown = [path for path in (tmp_path / "run").glob("events.out.*") if b"inputs" in path.read_bytes()]
    assert len(shown) == 1


def test_training_accuracy_of_mixed_images_counts_the_larger_share(fit: Fit, tmp_path: Path) -> None:
    fit("run", *CURVES, "data.augment.cutmix=1", "model.patch=7")
    points = events(tmp_path / "run")["train/accuracy"].Scalars("train/accuracy")
    assert all(0 <= point.value <= 1 for point in points)


def test_groups_that_share_a_rate_share_a_curve() -> None:
    one, two, three = (torch.nn.Parameter(torch.ones(1)) for _ in range(3))
    same = torch.optim.SGD([{"params": [one]}, {"params": [two]}], lr=0.5)
    assert optim.rates(same) == {"lr": 0.5}
    groups = [{"params": [one], "lr": 0.1, "name": "matrices"}, {"params": [two]}, {"params": [three], "lr": 0.1}]
    several = torch.optim.SGD(groups, lr=0.5)
    torch.optim.lr_scheduler.LambdaLR(several, lambda _: 0.5)
    assert optim.rates(several) == {"lr/matrices": 0.05, "lr/1": 0.25}


def test_settings_are_flat() -> None:
    tree = {"a": {"b": [1, 2], "c": None}, "d": True, "e": {}}
    assert dict(curves.flat(tree)) == {"a.b": "[1, 2]", "a.c": "null", "d": True}


def test_viewable_images_have_their_own_colours() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    normalised = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert np.array_equal(curves.viewable(normalised, mean, std), pixels.numpy())
    assert curves.viewable(torch.full((1, 1, 1, 2), 9.0), (0.5,), (0.5,)).tolist() == [[[[255, 255]]]]
