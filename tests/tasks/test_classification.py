from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks import optim
from tasks.base import step_seed
from tasks.classification import Scores
from tasks.run.divergence import DivergedError, first_nonfinite
from tests.tasks.conftest import Fit


def test_scores_equal_their_definitions() -> None:
    logits = torch.randn(200, 7)
    label = torch.randint(7, (200,))
    scores = Scores(7)
    for part in (slice(0, 150), slice(150, 200)):
        scores.update(logits[part], label[part])
    got = scores.collect()
    confidence, guess = logits.softmax(1).max(1)
    right = (guess == label).double()
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            ece += inside.double().mean().item() * abs(right[inside].mean().item() - confidence[inside].mean().item())
    assert got["loss"] == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
    assert got["accuracy"] == pytest.approx(right.mean().item(), abs=1e-6)
    top5 = (logits.topk(5).indices == label[:, None]).any(1).double().mean().item()
    assert got["accuracy_top5"] == pytest.approx(top5, abs=1e-6)
    assert got["ece"] == pytest.approx(ece, abs=1e-5)


def test_five_classes_have_no_accuracy_of_five_guesses() -> None:
    assert "accuracy_top5" not in collected(5)
    assert "accuracy_top5" in collected(6)


def collected(classes: int) -> dict[str, float]:
    scores = Scores(classes)
    scores.update(torch.randn(8, classes), torch.randint(classes, (8,)))
    return scores.collect()


def test_scores_start_afresh_after_each_collection() -> None:
    scores = Scores(3)
    label = torch.tensor([0, 1, 2])
    scores.update(10 * F.one_hot(label, 3).float(), label)
    assert scores.collect()["accuracy"] == 1
    scores.update(10 * F.one_hot(label, 3).float(), label.roll(1))
    assert scores.collect()["accuracy"] == 0


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.filters = nn.Parameter(torch.ones(4, 4))
        self.matrix_bias = nn.Parameter(torch.ones(4, 4))
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)) @ self.filters


def test_weight_decay_spares_biases_vectors_and_wishes() -> None:
    model = Small()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optim.parameter_groups(model.named_parameters(), 0.1, {"filters"})
    by_decay: dict[Any, set[str]] = {
        group["weight_decay"]: {names[id(p)] for p in group["params"]}  # type: ignore[attr-defined]
        for group in groups
    }
    spared = {"linear.bias", "norm.weight", "norm.bias", "filters", "matrix_bias"}
    assert by_decay == {0.1: {"linear.weight"}, 0.0: spared}


@pytest.mark.parametrize(
    ("poison", "expected"), [("input", "linear"), ("weight", "norm (parameter weight)"), ("none", "loss")]
)
def test_first_nonfinite_names_the_first_layer_that_ran(poison: str, expected: str) -> None:
    model, x = Small(), torch.randn(3, 4)
    if poison == "input":
        x[1, 2] = math.inf
    if poison == "weight":
        with torch.no_grad():
            model.norm.weight[0] = math.nan
    assert first_nonfinite(model, lambda: model(x)) == expected
    assert not any(layer._forward_hooks for layer in model.modules())


def test_step_seeds_differ_in_every_part_of_their_key() -> None:
    keys = [(s, e, b, r) for s in range(2) for e in range(3) for b in range(3) for r in range(2)]
    seeds = [step_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_divergence_is_reported_with_step_and_layer(fit: Fit, tmp_path: Path) -> None:
    metrics = fit("run", "optimizer.lr=1e30", "optimizer.warmup=0", "trainer.clip=0")
    assert metrics["status"] == "diverged"
    assert metrics["diverged/step"] >= 1
    assert metrics["diverged/layer"]
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "test/accuracy" not in metrics


def test_diverged_error_says_when_and_where() -> None:
    assert "step 7" in str(DivergedError(7, "head"))
    assert "head" in str(DivergedError(7, "head"))


@pytest.mark.slow
def test_compiled_model_trains_and_its_divergence_is_located(fit: Fit) -> None:
    assert fit("run", "trainer.compile=true", "trainer.ema=0.9")["status"] == "ok"
    metrics = fit("lost", "trainer.compile=true", "optimizer.lr=1e30", "optimizer.warmup=0", "trainer.clip=0")
    assert metrics["status"] == "diverged"
    assert metrics["diverged/layer"] != "loss"


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_mixing_trains_in_every_precision(fit: Fit, precision: str) -> None:
    metrics = fit("run", "data.augment.mixup=0.8", "data.augment.cutmix=1.0", f"trainer.precision={precision}")
    assert metrics["status"] == "ok"
    assert math.isfinite(metrics["test/loss"])
