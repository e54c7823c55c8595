from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.profiler import ProfilerActivity, profile

import models
import operators
import run as program
from operators import InputError
from operators.scan import selective_scan
from tasks.config.composition import compose, read
from tasks.planning.calibrate import Rates
from tasks.planning.estimate import Work
from tasks.planning.plan import make
from tasks.planning.simulate import materialise, simulated
from tasks.run.execute import execute
from tests.mixers import every_mixer
from tests.tasks.conftest import Fit

TOLD = ("plan.peak_tflops=1", "plan.bandwidth=10")
"""Rates that need no measurement."""


def shallow(*overrides: str) -> dict[str, Any]:
    return plan("mixer=conv", "model.depth=1", *overrides)


def plan(*overrides: str) -> dict[str, Any]:
    return make(read(["mode=plan", "trainer.accelerator=cpu", *TOLD, *overrides]))


class Steps(Callback):
    """Follows every allocation of torch on the CPU, and finds the most memory alive during a training step."""

    def __init__(self) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)

    def peak(self) -> int:
        events = [e for e in self.profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        live = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        return peak


SMALL = (
    "trainer.max_epochs=1",
    "trainer.max_steps=2",
    "+trainer.limit_val_batches=1",
    "trainer.test=false",
    "logger=none",
)
SMALL += ("trainer.accelerator=cpu",)


def check_memory(run_dir: Path, task: str, mixer: str, *more: str) -> None:
    if mixer in ("mamba", "ss2d"):  # compiled before it is watched
        like = torch.zeros(1, 16, 8, requires_grad=True)
        y = selective_scan(like, like, -torch.ones(16, 4), torch.zeros(1, 4, 8), torch.zeros(1, 4, 8))
        assert isinstance(y, torch.Tensor)
        y.sum().backward()
    overrides = [f"task={task}", f"mixer={mixer}", f"trainer.ema={0.999 if task == 'generation' else 0}", *more]
    gc.collect()  # what earlier tests have left would be freed meanwhile, and counted against this run
    steps = Steps()
    with steps.profiler:
        execute(compose([*overrides, *SMALL]), run_dir)
    assert plan(*overrides)["memory/training"] == pytest.approx(steps.peak(), rel=0.05)


@pytest.mark.parametrize("mixer", ["pde_ssm", pytest.param("mamba", marks=pytest.mark.slow)])
def test_memory_of_training_is_what_a_small_run_takes(tmp_path: Path, mixer: str) -> None:
    check_memory(tmp_path / "run", "classification", mixer, "model.depth=1", "data.batch_size=32")


@pytest.mark.slow
def test_memory_of_a_generator_is_what_a_small_run_takes(tmp_path: Path) -> None:
    check_memory(tmp_path / "run", "generation", "conv", "model.depth=1", "data.batch_size=32", "sample.n=8")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "generation"])
@pytest.mark.parametrize("mixer", operators.names())
def test_memory_is_what_a_run_takes(tmp_path: Path, task: str, mixer: str) -> None:
    check_memory(tmp_path / "run", task, mixer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "trainer.precision=bf16-mixed",
        "trainer.precision=bf16-true",
        "model.checkpointing=true",
        "trainer.accumulate=2",
        "data.augment.mixup=0.8",
    ],
)
def test_memory_follows_the_options(tmp_path: Path, change: str) -> None:
    check_memory(tmp_path / "run", "classification", "attention", "model.depth=2", change)


def test_batch_and_parameters_decide_the_memory() -> None:
    one, two, four = (shallow(f"data.batch_size={size}") for size in (32, 64, 128))
    first, second = (b["memory/activations"] - a["memory/activations"] for a, b in ((one, two), (two, four)))
    assert second == pytest.approx(2 * first, rel=0.01)
    assert two["memory/weights"] == 4 * two["params"]
    assert two["memory/gradients"] == 4 * two["params"]
    assert two["memory/optimizer"] == 8 * two["params"]
    assert shallow("trainer.ema=0.9")["memory/average"] == two["memory/weights"]
    shared = shallow("trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=128")
    assert shared["memory/activations"] == two["memory/activations"]
    assert shared["memory/buckets"] == two["memory/gradients"]
    assert 2 * two["throughput/training_high"] == pytest.approx(shared["throughput/training_high"])


LARGE = {
    "vit_base": {"image_size": (224, 224), "in_channels": 3, "num_classes": 1000},
    "dit_xl": {"image_size": (32, 32), "in_channels": 4, "num_classes": 1000},  # 256 px in the space of latents
}


@pytest.mark.parametrize("preset", LARGE)
@pytest.mark.parametrize("mixer", every_mixer())
def test_every_mixer_of_the_largest_models_runs_without_storage(preset: str, mixer: str) -> None:
    shape = LARGE[preset]
    # One block stands for all, which are alike.
    with torch.device("meta"):
        model = models.create(preset, mixers=models.MixerSpec(mixer), depth=1, **shape)  # type: ignore[arg-type]
    with simulated() as ledger:
        materialise(model, "cpu")
        images = torch.empty(2, shape["in_channels"], *shape["image_size"])  # type: ignore[misc]
        label = torch.empty(2, dtype=torch.int64)
        output = model(images) if preset.startswith("vit") else model(images, torch.empty(2), label)
        before = ledger.live
        output.sum().backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    assert tuple(output.shape) == ((2, 1000) if preset.startswith("vit") else (2, 4, 32, 32))
    assert before > sum(p.nbytes for p in model.parameters())
    assert model.backend in (*operators.describe(mixer).backends, "fft", "separable")


@pytest.mark.parametrize("order", ["window_2"])
def test_a_plan_leaves_no_fake_tensors_behind(fit: Fit, order: str) -> None:
    plan("mixer=mamba", f"mixer.order={order}", "model.depth=1")
    assert fit("run", "mixer=mamba", f"mixer.order={order}", "trainer.max_steps=1")["status"] == "ok"


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=cifar10", "data.root=/nowhere"],
        ["data=imagenet", "data.root=/nowhere", "data.splits={train: mine}", "model=vit_tiny"],
        ["pde.boundary=absorbing", "pde.tensor=full"],
        ["mixer=hybrid"],
        ["task=generation", "pde.condition=cond", "sample.guidance=2", "sample.batch_size=4"],
    ],
)
def test_plan_needs_no_data(overrides: list[str]) -> None:
    facts = plan("model.depth=3" if "mixer=hybrid" in overrides else "model.depth=1", *overrides)
    assert facts["memory/training"] > facts["memory/inference"] > facts["memory/weights"] > 0
    assert facts["macs"] > facts["mixer_macs"] > 0


def test_guidance_evaluates_two_rows_for_each_sample() -> None:
    guided = shallow("task=generation", "sample.batch_size=10", "sample.guidance=2")
    assert guided["inference_batch"] == 2 * shallow("task=generation", "sample.batch_size=10")["inference_batch"] == 20


def test_throughput_is_a_bracket_of_rates() -> None:
    work = Work(images=10, macs=1000, traffic=400, calls=5)
    low, high = work.images_per_second(Rates(macs=100, bandwidth=20, call=2, source=""))
    assert (low, high) == (10 / (10 + 20 + 10), 1.0)
    assert work.images_per_second(Rates(macs=100, bandwidth=None, call=0, source="")) == (None, 1.0)
    facts = shallow("plan.bandwidth=null")
    assert facts["throughput/training_low"] is None
    # 1 TFLOP/s are half as many multiply-accumulates; training takes three of forward's.
    assert facts["throughput/training_high"] == pytest.approx(0.5e12 / (3 * facts["macs"]))
    assert facts["throughput/inference_high"] == pytest.approx(0.5e12 / facts["macs"])


def test_rates_are_measured_where_none_are_told() -> None:
    facts = plan("plan.peak_tflops=null", "plan.bandwidth=null", "model.depth=1")
    assert 0 < facts["throughput/training_low"] < facts["throughput/training_high"]
    assert facts["rates/tflops"] > 1e-4
    assert "measured" in facts["rates/source"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_plan_for_a_device_that_is_not_here_says_what_it_does_not_know() -> None:
    facts = shallow("trainer.accelerator=gpu", "plan.peak_tflops=null", "plan.bandwidth=null")
    assert (facts["device"], facts["backend"], facts["throughput/training_high"]) == ("cuda", None, None)
    assert any("no cuda device here" in note for note in facts["notes"])
    assert shallow("trainer.accelerator=gpu")["throughput/training_low"] > 0


def test_plan_is_printed_and_left_in_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["mode=plan", "mixer=pool", "hydra.run.dir=here", *TOLD]
    assert program.main(given) == 0
    out = capsys.readouterr().out
    for word in ("parameters", "mixers", "rest", "memory of training", "activations", "estimate", "backend"):
        assert word in out
    facts = json.loads(Path("here/plan.json").read_text())
    assert (facts["status"], facts["mode"], facts["batch"]) == ("ok", "plan", 64)
    assert {path.name for path in Path("here").iterdir()} == {"plan.json", "config.yaml"}
    assert program.main(given) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["mode=plan", "ckpt=x"], "takes no ckpt"),
        (["mode=plan", "init=x"], "init=PATH"),
        (["mode=plan", "model=dit_nano"], "is not made for task=classification"),
        (["mode=plan", "data=image_folder"], "needs data.root=DIR"),
        (["mode=plan", "plan.bandwidth=3"], "needs plan.peak_tflops"),
        (["mode=plan", "plan.peak_tflops=-3"], "plan.peak_tflops=-3"),
        (["mode=plan", "plan.tflops=3"], "peak_tflops"),
        (["mode=plan", "trainer.devices=3"], "must be divisible by the 3 devices"),
        (["mode=plan", "trainer.accelerator=tpu"], "trainer.accelerator with mode=plan='tpu'"),
        (["mode=plan", "data.resolution=[28,56]"], "several resolutions go with mode=test"),
        (["plan.bandwidth=3"], "goes with mode=plan"),
    ],
)
def test_wrong_plan_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        make(read(overrides))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_matched_width_is_in_the_configuration_and_in_the_metrics(fit: Fit, tmp_path: Path) -> None:
    config = compose(["mixer=conv", "model.match={params: 220K}"])
    assert config["model"]["match"] == {"params": 220_000}
    assert config["model"]["hidden"] == 294
    metrics = fit("run", "model.match={params: 20K}")
    assert metrics["match/budget"] == "params"
    assert metrics["match/target"] == 20_000
    assert metrics["match/residual"] == metrics["params"] / 20_000 - 1
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["match"]["match/hidden"] == metrics["match/hidden"]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    again = compose([f"ckpt={last}", "model.match={params: 20K}", "trainer.max_steps=4"])
    assert again["model"]["hidden"] == metrics["match/hidden"]
    assert execute(again, tmp_path / "run")["params"] == metrics["params"]
    with pytest.raises(InputError, match="contradicts the checkpoint"):
        compose([f"ckpt={last}", "model.match={params: 30K}"])
    with pytest.raises(InputError, match="exclude each other"):
        compose(["model.hidden=3", "model.match={params: 30K}"])
