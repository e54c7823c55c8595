"""What `operators.show` draws of checkpoints and runs: the very mixers, among the tokens that they are given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import models
from operators.show import __main__ as cli
from operators.show import page
from operators.show.layers import START, TRAINED, Layer
from operators.testing.checks import assert_close, assert_differs
from tasks import show
from tasks.run import curves
from tasks.system import checkpoint
from tests.tasks.conftest import Fit
from tests.tasks.run.test_curves import events

SMALL = ("mixer=conv", "model.depth=2", "trainer.max_steps=2", "trainer.test=false")


def trunk(model: str, **mixer: Any) -> models.Trunk:
    return models.create(
        model, mixers=models.MixerSpec(**mixer), image_size=(12, 8), in_channels=1, num_classes=3, dim=8, depth=2
    )


def test_mixers_are_shown_what_they_are_given() -> None:
    made = trunk("vit_nano", name="conv").eval()
    image = torch.randn(1, 12, 8)
    first, second = show.watched(made, image, "now")
    block = made.blocks[0]
    tokens = made.tokens(image[None])
    assert_close(first.x, block.mixer_norm(tokens)[0].detach(), 1e-6, "tokens of the first mixer")
    assert_close(second.x, made.blocks[1].mixer_norm(block(tokens))[0].detach(), 1e-6, "tokens of the second")
    assert (first.name, first.grid, first.cond) == ("now", (3, 2), None)
    layers = show.layers(made, [first, second])
    assert [layer.title for layer in layers] == ["layer 0: conv", "layer 1: conv"]
    assert layers[0].pixels == (4, 4)
    assert not any(mixer._forward_pre_hooks for mixer in made.mixers)


def test_mixers_of_a_generator_come_with_their_vector() -> None:
    made = trunk("dit_nano", name="pde_ssm", params={"condition": "cond"})
    states = show.watched(made, torch.randn(1, 12, 8), "")
    given = made.condition(torch.tensor([show.TIME]), torch.tensor([show.LABEL]))
    assert_close(states[0].cond, given[0].detach(), 1e-6, "vector")
    assert states[0].response.shape == (*states[0].grid, 8)


def test_a_checkpoint_is_shown_at_initialisation_and_trained(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command for names hands checkpoints over."""
    fit("run", *SMALL)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    layers, facts = show.read(str(path), None, 0)
    assert [[state.name for state in layer.states] for layer in layers] == 2 * [[START, TRAINED]]
    before, after = (state.mixer for state in layers[1].states)
    saved = checkpoint.load(path)["state_dict"]
    assert torch.equal(after.core.conv.weight, saved["model.blocks.1.mixer.core.conv.weight"])
    assert_differs(before.core.conv.weight.detach(), after.core.conv.weight.detach(), 1e-4, "filters")
    run = checkpoint.check_config(checkpoint.load(path)[checkpoint.KEY]["config"], "")
    fresh = run.build(show.Images.recorded(checkpoint.load(path)[checkpoint.KEY]["data"]))
    assert torch.equal(before.core.conv.weight, fresh.mixers[1].core.conv.weight)
    assert "step 2" in facts["checkpoint"]
    assert "conv: equation" in facts

    capsys.readouterr()
    monkeypatch.setattr(page, "sections", lambda layers: iter([page.Section(layers[0].title, [])]))
    assert cli.main([str(path)]) == 0
    html = tmp_path / "run" / "pictures" / "index.html"
    assert capsys.readouterr().out == f"{html}\n"
    assert "layer 0: conv" in html.read_text(encoding="utf-8")


def test_an_image_is_normalised_as_the_model_takes_it(tmp_path: Path) -> None:
    images = show.Images(3, 1, (4, 2), (0.5,), (0.25,), (1, 4, 2))
    path = tmp_path / "image.png"
    Image.fromarray(np.full((8, 4), 255, np.uint8)).save(path)
    assert_close(show.opened(path, images, generator=False), torch.full((1, 4, 2), 2.0), 1e-6, "classifier")
    assert_close(show.opened(path, images, generator=True), torch.ones(1, 4, 2), 1e-6, "generator")
    path.write_text("no image")
    with pytest.raises(show.InputError, match="cannot be read"):
        show.opened(path, images, generator=False)
    with pytest.raises(show.InputError, match="works on latents"):
        show.opened(path, show.Images(3, 1, (4, 2), (0.5,), (0.25,), (4, 2, 1)), generator=False)


def dot() -> page.Picture:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(buffer, "PNG")
    return page.Picture("dot.png", buffer.getvalue(), "a dot")


def test_a_run_draws_its_mixers_and_trains_as_without(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every second epoch, among the tokens of a validation image; the weights are the same, bit by bit."""
    drawn: list[Layer] = []

    def overview(layers: list[Layer]) -> list[page.Picture]:
        drawn.extend(layers)
        assert layers[0].states[0].field.isfinite().all()  # takes gradients, which validation is without
        return [dot()]

    monkeypatch.setattr(curves.page, "overview", overview)
    four = ("mixer=attention", "trainer.max_epochs=4", "trainer.max_steps=null", "+trainer.limit_train_batches=1")
    for name, every in (("with", 2), ("without", 0)):
        fit(name, *four, "logger=tensorboard", f"logger.pictures={every}", "trainer.test=false")
    assert [layer.title for layer in drawn] == 2 * ["layer 0: attention"]
    found = events(tmp_path / "with")
    steps = [image.step for image in found["mixers/dot"].Images("mixers/dot")]
    assert steps == [2, 4]
    weights = [
        checkpoint.load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("with", "without")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.mark.slow
@pytest.mark.parametrize("more", [("mixer=pde_ssm", "pde.groups=4"), ("task=generation", "mixer=mamba")])
def test_real_pictures_reach_the_log(fit: Fit, tmp_path: Path, more: tuple[str, ...]) -> None:
    fit("run", *more, "logger=tensorboard", "logger.pictures=1", "trainer.max_steps=1", "trainer.test=false")
    found = events(tmp_path / "run")
    expected = {"mixers/receptive-field", "mixers/spectrum", "mixers/mixing-distance"}
    if "mixer=pde_ssm" in more:
        expected |= {"mixers/spots", "mixers/coefficients"}
    assert expected <= set(found)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["logger=csv", "+logger.pictures=1"], "logger.pictures=1 goes with logger=tensorboard or wandb or mlflow"),
        (["logger=tensorboard", "logger.pictures=-1"], "logger.pictures=-1 must be an integer >= 0"),
        (["logger=tensorboard", "logger.pictures=1", "trainer.strategy=fsdp"], "needs a process that has the whole"),
    ],
)
def test_refusals(fit: Fit, overrides: list[str], message: str) -> None:
    with pytest.raises(show.InputError, match=message):
        fit("run", *overrides)


def test_pictures_without_matplotlib_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.config import training

    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(show.InputError, match="needs matplotlib"):
        training.LoggerConfig(name="tensorboard", pictures=1).check_installed()
