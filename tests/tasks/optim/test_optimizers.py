from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from operators import InputError
from tasks import optim
from tasks.config.choices import OPTIMIZERS
from tasks.config.composition import compose
from tasks.config.training import OptimizerConfig
from tests.tasks.conftest import Fit
from tests.tasks.run.test_execute import Kill, timeless, weights

PACKAGED = ("lion", "lamb", "schedule_free")
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_optimizer") is None, reason="pytorch_optimizer is not installed"
)
KINDS = ("adamw", "muon", "schedule_free")
"""One optimizer, two in one, and one whose weights are not those it validates."""
every = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_package) if name in PACKAGED else name for name in OPTIMIZERS]
)


class Small(nn.Module):
    """A matrix of each kind, a vector, a filter that wishes not to be decayed, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
            self.filters = nn.Parameter(torch.randn(8, 8) / 8 + torch.eye(8))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.hidden(x)) @ self.filters)


EXEMPT, MATRICES = {"filters"}, {"hidden.weight", "filters"}


def configured(name: str, **changes: Any) -> OptimizerConfig:
    node = compose([f"optimizer={name}"])["optimizer"]
    return OptimizerConfig(**{**node, "warmup": 0, "schedule": "constant", **changes})


def made(model: nn.Module, config: OptimizerConfig, **more: Any) -> torch.optim.Optimizer:
    named = model.named_parameters()
    return optim.create(named, config, total=50, epochs=1.0, exempt=EXEMPT, matrices=MATRICES, **more)[0]


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 6, generator=generator)
    label = (x[:, :3] + x[:, 3:]).argmax(1)
    losses = []
    for _ in range(number):
        loss = F.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@every
def test_learns_a_small_problem(name: str) -> None:
    model = Small()
    losses = steps(model, made(model, configured(name, lr=2e-2 if name != "lion" else 5e-3)), 150)
    assert losses[-1] < 0.3 < 1 < losses[0]


@every
def test_wishes_and_vectors_are_not_decayed(name: str) -> None:
    model = Small()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = made(model, configured(name, weight_decay=0.3)).param_groups
    decay = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay == {
        "hidden.weight": 0.3, "head.weight": 0.3, "hidden.bias": 0.0, "head.bias": 0.0, "filters": 0.0,
    }  # fmt: skip


@every
def test_gradient_of_zero_moves_only_what_is_decayed(name: str) -> None:
    model = Small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = made(model, configured(name, lr=0.1, weight_decay=0.5))
    for _ in range(2):
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"hidden.weight", "head.weight"}


@every
def test_state_is_what_a_checkpoint_is_compared_with(name: str) -> None:
    model, config = Small(), configured(name)
    optimizer = made(model, config)
    expected = optim.state_like(optimizer, config)
    steps(model, optimizer, 2)
    state = optimizer.state_dict()["state"]
    assert list(state) == list(range(len(expected)))
    for number, kept in state.items():
        shapes = {key: value.shape for key, value in kept.items() if isinstance(value, Tensor)}
        assert {key: value.shape for key, value in expected[number].items()}.items() <= shapes.items()


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_dict_goes_on_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    config = configured(name)
    whole, first, second = Small().to(dtype), Small().to(dtype), Small().to(dtype)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        for step in range(number):
            for index, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
                parameter.grad = torch.sin(parameter.detach() * (index + 2) + step % 3)
            optimizer.step()

    train(whole, made(whole, config), 6)
    optimizer = made(first, config)
    train(first, optimizer, 3)
    resumed = made(second, config)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    train(second, resumed, 3)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), second.parameters(), strict=True))


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    model = models.create(
        "vit_nano",
        mixers=models.MixerSpec("attention"),
        image_size=(8, 12),
        in_channels=1,
        num_classes=3,
        dim=16,
        depth=2,
    )
    matrices = model.hidden_matrices()
    inside = ("mixer.core.qk", "mixer.shell.in_proj", "mixer.shell.out_proj", "ffn.up", "ffn.down")
    assert matrices == {f"blocks.{block}.{name}.weight" for block in range(2) for name in inside}
    named, config = dict(model.named_parameters()), configured("muon", weight_decay=0.1)
    optimizer, _ = optim.create(
        named.items(), config, total=2, epochs=1.0, exempt=model.no_weight_decay(), matrices=matrices
    )
    names = {id(parameter): key for key, parameter in named.items()}
    served = {names[id(p)] for group in optimizer.param_groups if "momentum" in group for p in group["params"]}
    assert served == matrices
    assert {names[id(p)] for group in optimizer.param_groups for p in group["params"]} == set(named)


def test_muon_step_is_orthogonal_and_as_large_as_adamws() -> None:
    model = Small()
    before = model.hidden.weight.detach().clone()
    steps(model, made(model, configured("muon", lr=1e-2, weight_decay=0.0)), 1)
    step = (before - model.hidden.weight.detach()) / (1e-2 * 0.2 * 8**0.5)
    singular = torch.linalg.svdvals(step)
    assert bool(((singular > 0.5) & (singular < 1.5)).all())  # the iteration's own bounds


def test_combined_optimizer_evaluates_its_closure_once() -> None:
    model, calls = Small(), []
    optimizer = made(model, configured("muon"))

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        loss = model(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) > 0
    assert calls == [True]


@pytest.mark.parametrize("name", PACKAGED)
def test_missing_package_is_named_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(InputError) as caught:
        made(Small(), configured(name))
    assert f"optimizer={name} needs" in str(caught.value)
    assert 'pip install "operator-zoo[optimizers]"' in str(caught.value)
    assert "\n" not in str(caught.value)


LONG = (
    "trainer.max_steps=null",
    "trainer.max_epochs=3",
    "+trainer.limit_train_batches=3",
    "optimizer.weight_decay=0.1",
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[needs_package] * (name in PACKAGED) + [pytest.mark.slow] * (name not in KINDS))
        for name in OPTIMIZERS
    ],
)
@pytest.mark.parametrize(
    "killed_at",
    [pytest.param(3, marks=pytest.mark.slow, id="first step of an epoch"), pytest.param(7, id="within an epoch")],
)
def test_continued_run_ends_bit_for_bit(name: str, killed_at: int, fit: Fit, tmp_path: Path) -> None:
    extra = (*LONG, f"optimizer={name}", "trainer.save_every=1", "trainer.test=false")
    whole = fit("whole", *extra)
    with pytest.raises(RuntimeError, match="killed"):
        fit("cut", *extra, callbacks=[Kill(killed_at)])
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert timeless(fit("cut", *extra, f"ckpt={last}")) == timeless(whole)
    one, other = weights(tmp_path / "whole" / "checkpoints" / "last.ckpt"), weights(last)
    assert all(torch.equal(one[key], other[key]) for key in one)


@needs_package
def test_schedule_free_validates_and_saves_its_average(fit: Fit, tmp_path: Path) -> None:
    fit("run", *LONG, "optimizer=schedule_free", "trainer.test=false")
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = content["optimizer_states"]
    assert not any(group["train_mode"] for group in state["param_groups"])
    # z, of which the weights are an average, is further along
    kept = state["state"][0]["z"]
    shapes = [value for value in content["state_dict"].values() if value.shape == kept.shape]
    assert not any(torch.equal(value, kept) for value in shapes)
