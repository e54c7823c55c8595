"""Generation from end to end: what the numbers mean, what is shared between arms, and what a run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import models
from models import MixerSpec
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tasks import pictures
from tasks.config.composition import compose
from tasks.config.schema import parse
from tasks.config.task import GenerationConfig, SampleConfig
from tasks.config.training import OptimizerConfig
from tasks.generation import BinnedLoss, Generation
from tasks.run.execute import execute
from tasks.system import checkpoint
from tests.tasks.run.test_execute import Kill, timeless, weights

SMALL = (
    "task=generation",
    "mixer=pool",
    "model.dim=16",
    "model.depth=1",
    "data.batch_size=32",
    "trainer=smoke",
    "trainer.accelerator=cpu",
    "logger=none",
    "sample.n=23",
    "sample.steps=2",
    "sample.batch_size=10",
    "sample.every=1",
    "task.network=null",
    "task.judge=true",
)


@pytest.fixture(scope="module", autouse=True)
def hasty_judge(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A judge that has hardly learned anything, kept where no real run finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.measures.judge.STEPS", 2)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, hasty_judge: None) -> Path:
    """The directory of a finished run; not to be written to."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    execute(compose([*SMALL, "logger=tensorboard"]), run_dir)
    return run_dir


def images(count: int = 6, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(count, 1, 8, 8, generator=generator),
        "label": torch.arange(count) % 3,
        "index": torch.arange(count),
        "epoch": torch.full((count,), 2),
    }


def make(mixer: str = "pool", *, seed: int = 0, sample: SampleConfig | None = None, **task: Any) -> Generation:
    model = models.create(
        "dit_nano", mixers=MixerSpec(mixer), image_size=(8, 8), in_channels=1, num_classes=3, dim=16, depth=1, patch=2
    )
    assert isinstance(model, models.DiffusionTransformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return Generation(
        model,
        task=GenerationConfig(**task),
        sample=sample or SampleConfig(),
        channels=1,
        image_size=(8, 8),
        mean=(0.3,),
        std=(0.4,),
        optimizer=OptimizerConfig(),
        seed=seed,
    )


def rows(batch: dict[str, Tensor], chosen: slice) -> dict[str, Tensor]:
    return {key: value[chosen] for key, value in batch.items()}


# ---------------------------------------------------------------- losses


def test_images_are_brought_to_the_range_of_pixels() -> None:
    pixels = torch.rand(2, 1, 8, 8)
    normalised = (pixels - 0.3) / 0.4
    assert_close(make().images({"image": normalised}), 2 * pixels - 1, 1e-6, "images")


def test_a_model_that_says_nothing_has_the_loss_of_the_targets_size() -> None:
    module, batch = make(), images()
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter.zero_()
    prediction, velocity, t = module.losses(batch, "val", "uniform", 0.0)
    seen: list[Tensor] = []
    module._predict = lambda x, t, label: seen.append(x) or torch.zeros_like(x)  # type: ignore[method-assign, func-returns-value]
    module.losses(batch, "val", "uniform", 0.0)
    x, time = module.images(batch), t.view(-1, 1, 1, 1)
    eps = (seen[0] - time * x) / (1 - time)
    assert_close(prediction, (x - eps).square().mean((1, 2, 3)), 1e-5, "loss")
    assert_close(velocity, prediction, 0, "velocity's loss")


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_random_numbers_belong_to_the_image_and_not_to_batch_or_mixer(drop: float) -> None:
    batch = images()

    def seen(module: Generation, chosen: slice) -> tuple[Tensor, ...]:
        found: list[tuple[Tensor, ...]] = []
        module._predict = lambda *inputs: found.append(inputs) or inputs[0]  # type: ignore[method-assign, func-returns-value]
        module.losses(rows(batch, chosen), "flow", "logit_normal", drop)
        return found[0]

    whole = seen(make("pool"), slice(None))
    part = seen(make("conv"), slice(3, 5))
    for name, all_rows, some in zip(("x_t", "t", "label"), whole, part, strict=True):
        assert torch.equal(all_rows[3:5], some), name
    other = seen(make("pool", seed=1), slice(None))
    assert_differs(other[0], whole[0], 0.1, "x_t of another seed")
    assert (whole[2] == 3).any() == (drop > 0)


def test_training_never_sees_the_numbers_of_validation_and_another_epoch_brings_others() -> None:
    module, batch = make(), images()
    _, _, t = module.losses(batch, "flow", "uniform", 0.0)
    _, _, other = module.losses(batch, "val", "uniform", 0.0)
    _, _, later = module.losses({**batch, "epoch": batch["epoch"] + 1}, "flow", "uniform", 0.0)
    assert not (t == other).any()
    assert not (t == later).any()


def test_the_loss_of_a_split_is_the_mean_over_images_whatever_the_batches() -> None:
    losses, t = torch.rand(10), torch.linspace(0, 0.79, 10)
    whole, parts = BinnedLoss(4), BinnedLoss(4)
    whole.update(losses, t)
    for chosen in (slice(0, 3), slice(3, 4), slice(4, 10)):
        parts.update(losses[chosen], t[chosen])
    values = whole.collect()
    assert values == pytest.approx(parts.collect())
    assert values["loss"] == pytest.approx(losses.double().mean().item())
    assert values["loss_bin_1"] == pytest.approx(losses[(t >= 0.25) & (t < 0.5)].double().mean().item())
    assert set(values) == {"loss", *(f"loss_bin_{i}" for i in range(4))}
    whole.update(losses[:1], t[:1])
    assert set(whole.collect()) == {"loss", "loss_bin_0"}


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize("solver", ["euler", "heun", "dopri5"])
def test_samples_depend_on_seed_and_index_and_not_on_the_batch(solver: str) -> None:
    module = make(sample=SampleConfig(solver=solver, guidance=2.0, interval=(0.2, 0.8), steps=3)).double()
    index = np.arange(7)
    whole = module.draw(index, module.labels(index), 3).x1
    alone = module.draw(index[4:5], module.labels(index[4:5]), 3).x1
    assert_close(alone, whole[4:5], 1e-6, "sample 4")  # its noise is drawn in float32
    again = make(sample=module.sample).double().draw(index, module.labels(index), 3).x1
    assert torch.equal(again, whole)
    other = make(sample=module.sample, seed=1).double().draw(index, module.labels(index), 3).x1
    assert_differs(other, whole, 0.1, "samples of another seed")


def test_classes_take_turns() -> None:
    assert make().labels(np.arange(5)).tolist() == [0, 1, 2, 0, 1]
    assert make(sample=SampleConfig(classes=[2, 0])).labels(np.arange(5)).tolist() == [2, 0, 2, 0, 2]


def test_guidance_zero_is_the_null_class_and_one_is_none() -> None:
    index = np.arange(4)
    label = torch.tensor([0, 1, 2, 0])
    plain = make().draw(index, label, 2).x1
    null = make().draw(index, torch.full_like(label, 3), 2).x1
    assert torch.equal(make(sample=SampleConfig(guidance=0)).draw(index, label, 2).x1, null)
    assert torch.equal(make(sample=SampleConfig(guidance=1)).draw(index, label, 2).x1, plain)
    assert_differs(make(sample=SampleConfig(guidance=3)).draw(index, label, 2).x1, plain, 1e-4, "guided samples")


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
@pytest.mark.parametrize("path", ["linear", "gvp", "vp"])
def test_every_path_and_prediction_trains_and_draws(path: str, prediction: str) -> None:
    module, batch = make(path=path, prediction=prediction), images()
    loss = module.losses(batch, "flow", "uniform", 0.1)[0].mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    assert torch.isfinite(module.draw(np.arange(3), torch.arange(3), 4).x1).all()


def test_samples_that_are_not_finite_are_an_error() -> None:
    module = make()
    module._predict = lambda x, t, label: torch.full_like(x, torch.nan)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=r"heun did not arrive at finite samples with sample\.steps=2"):
        module.draw(np.arange(2), torch.arange(2), 2)


# ---------------------------------------------------------------- a run


def test_run_directory_holds_what_is_promised(finished: Path) -> None:
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    wanted = {"config.yaml", "metrics.json", "provenance.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    assert wanted | {"samples/sheet.png", "samples/trajectory.gif", "samples/samples.npz"} <= names
    assert "predictions.npz" not in names
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["status"] == "ok"
    assert metrics["test/n"] == 23
    assert {"val/loss", "test/loss", "test/class_accuracy", "test/class_accuracy/real"} <= set(metrics)
    assert {f"test/loss_bin_{i}" for i in range(5)} <= set(metrics)
    with np.load(finished / "samples" / "samples.npz") as kept:
        assert kept["arr_0"].shape == (23, 28, 28, 3)
        assert kept["arr_0"].dtype == np.uint8
        assert kept["labels"].tolist() == [i % 10 for i in range(23)]


def test_best_is_the_checkpoint_with_the_least_validation_loss(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    best = checkpoint.load(finished / "checkpoints" / "best.ckpt")
    assert best[checkpoint.KEY]["scores"]["val/loss"] == metrics["val/loss"]


def test_testing_again_gives_the_same_numbers_and_samples(finished: Path, tmp_path: Path) -> None:
    ckpt = f"ckpt={finished / 'checkpoints' / 'best.ckpt'}"
    metrics = execute(compose(["mode=test", ckpt, "sample.batch_size=23", "logger=none"]), tmp_path / "again")
    before = json.loads((finished / "metrics.json").read_text())
    for name in ("test/loss", "test/class_accuracy", "test/loss_bin_2"):
        assert metrics[name] == pytest.approx(before[name], rel=1e-5), name
    with (
        np.load(finished / "samples" / "samples.npz") as first,
        np.load(tmp_path / "again/samples/samples.npz") as then,
    ):
        off = np.abs(first["arr_0"].astype(int) - then["arr_0"].astype(int))
        assert off.max() <= 1  # another batch may round the last bit of a product another way
        assert (off > 0).mean() < 1e-3


def test_drawing_takes_classes_and_settings_of_its_own(finished: Path, tmp_path: Path) -> None:
    ckpt = f"ckpt={finished / 'checkpoints' / 'best.ckpt'}"
    overrides = ["mode=sample", ckpt, "sample.n=5", "sample.classes=[3,7]", "sample.guidance=2", "sample.solver=euler"]
    metrics = execute(compose(overrides), tmp_path / "drawn")
    assert metrics["status"] == "ok"
    assert not any(name.startswith(("test/", "val/", "train/")) for name in metrics)
    names = {path.name for path in (tmp_path / "drawn" / "samples").iterdir()}
    pngs = {f"{i:05d}_class{label}.png" for i, label in enumerate([3, 7, 3, 7, 3])}
    assert names == pngs | {"sheet.png", "trajectory.gif", "samples.npz"}
    with Image.open(tmp_path / "drawn/samples/00001_class7.png") as picture:
        assert picture.size == (28, 28)
        with np.load(tmp_path / "drawn/samples/samples.npz") as kept:
            assert np.array_equal(np.asarray(picture), kept["arr_0"][1, ..., 0])


def test_sheets_reach_tensorboard(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(finished))
    events.Reload()
    assert sorted(events.Tags()["images"]) == ["inputs", "samples"]


def test_a_continued_run_ends_bit_for_bit_as_an_undisturbed_one(tmp_path: Path) -> None:
    long = ("trainer.max_steps=null", "trainer.max_epochs=2", "+trainer.limit_train_batches=3", "trainer.test=false")
    overrides = [*SMALL, *long, "task.times=logit_normal"]
    whole = execute(compose(overrides), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        execute(compose(overrides), tmp_path / "cut", callbacks=[Kill(4)])
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    continued = execute(compose([*overrides, f"ckpt={last}"]), tmp_path / "cut")
    assert timeless(continued) == timeless(whole)
    one, other = weights(tmp_path / "whole" / "checkpoints" / "last.ckpt"), weights(last)
    assert all(torch.equal(one[key], other[key]) for key in one)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=generation", "model=vit_nano"], r"model=vit_nano is not made for task=generation: take dit_\*"),
        (["model=dit_nano"], r"model=dit_nano is not made for task=classification: take vit_\*"),
        (["task=generation", "data.augment.mixup=0.8"], r"data\.augment\.mixup and cutmix must be 0"),
        (["task=generation", "sample.classes=[1]"], r"sample\.classes goes with mode=sample"),
        (["task=generation", "task.path=linaer"], r"task\.path='linaer' is not known: .*; did you mean 'linear'"),
        (["task=generation", "task.network=inceptoin"], r"task\.network .*did you mean 'inception'"),
        (["task=generation", "task.class_dropout=2"], r"task\.class_dropout=2 must be a number >= 0 and <= 1"),
        (
            ["task=generation", "sample.solver=rk4"],
            r"sample\.solver='rk4' is not known: allowed are euler, heun, dopri5",
        ),
        (["task=generation", "sample.interval=[0.9,0.1]"], r"sample\.interval=\[0\.9, 0\.1\] must rise"),
        (["task=generation", "sample.interval=3"], r"sample\.interval=3 must be two times"),
        (["task=generation", "sample.classes=3"], r"sample\.classes=3 must be a list of class numbers"),
        (["task=generation", "mode=sample"], r"mode=sample needs ckpt=PATH, the checkpoint to draw from"),
        (["sample.n=3"], r"sample\.n does not exist here: sample\.\* exists only with task=generation"),
        (["task=generation", "sample.nn=3"], r"sample\.nn does not exist: sample has .*; did you mean 'n'"),
        (["task=generation", "task.label_smoothing=0.1"], r"task\.label_smoothing does not exist"),
    ],
)
def test_refusals(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        execute(compose([*overrides, "trainer=smoke", "logger=none"]), tmp_path / "run")


def test_refusals_of_checkpoints(finished: Path, tmp_path: Path) -> None:
    ckpt = f"ckpt={finished / 'checkpoints' / 'best.ckpt'}"
    with pytest.raises(InputError, match=r"sample\.classes=10 must be an integer >= 0 and <= 9"):
        execute(compose(["mode=sample", ckpt, "sample.classes=[10]"]), tmp_path / "a")
    with pytest.raises(InputError, match=r"model\.dim=32 contradicts the checkpoint, which has 16"):
        compose(["mode=sample", ckpt, "model.dim=32"])
    with pytest.raises(InputError, match=r"task='classification' contradicts the checkpoint, which has 'generation'"):
        compose(["mode=test", ckpt, "task=classification"])


def test_the_node_sample_exists_with_generation_only() -> None:
    config = compose(["task=generation"])
    assert "sample" not in compose([])
    with pytest.raises(InputError, match="sample exists with task=generation, and only there"):
        parse({key: value for key, value in config.items() if key != "sample"})
    assert parse(config).sample == SampleConfig(interval=[0.0, 1.0])  # type: ignore[arg-type]


def test_conditioned_pde_layers_see_time_and_class() -> None:
    model = models.create(
        "dit_nano",
        mixers=MixerSpec("pde_ssm", {"condition": "cond"}),
        image_size=(8, 8),
        in_channels=1,
        num_classes=3,
        dim=16,
        depth=1,
        patch=2,
    )
    assert isinstance(model, models.DiffusionTransformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tokens = torch.randn(1, 4, 4, 16)

    def kernel(time: float, label: int) -> Tensor:
        cond = model.condition(torch.tensor([time]), torch.tensor([label]))
        return model.mixers[0].inspect(tokens, cond)["kernel"].detach()

    assert_differs(kernel(0.2, 0), kernel(0.8, 0), 1e-3, "kernel at another time")
    assert_differs(kernel(0.2, 0), kernel(0.2, 1), 1e-3, "kernel of another class")
    with pytest.raises(InputError, match="is conditioned: it needs cond"):
        model.mixers[0].inspect(tokens)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_shows_every_image_where_it_belongs(channels: int, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (5, channels, 4, 6), dtype=np.uint8)
    page = pictures.sheet(drawn, 2)
    assert page.shape == (3 * 5, 2 * 7, 3)
    shown: Callable[[int, int], Any] = lambda row, column: page[row * 5 : row * 5 + 4, column * 7 : column * 7 + 6]  # noqa: E731
    for number in range(5):
        assert np.array_equal(shown(*divmod(number, 2)), np.broadcast_to(drawn[number].transpose(1, 2, 0), (4, 6, 3)))
    assert not shown(2, 1).any()
    pictures.write_sheet(tmp_path / "sheet.png", drawn, np.array([4, 2, 4, 4, 2]))
    times = pictures.SMALL // 6
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (pictures.EXAMPLES * 7 * times, 2 * 5 * times)
        first = np.asarray(picture)[: 4 * times : times, : 6 * times : times]
    assert np.array_equal(first, np.broadcast_to(drawn[1].transpose(1, 2, 0), (4, 6, 3)))


def test_a_film_has_its_frames_and_stops_for_a_while(tmp_path: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 3, 1, 8, 8), dtype=np.uint8))
    pictures.write_film(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4  # type: ignore[attr-defined]
        film.seek(3)
        assert film.info["duration"] == 2000
