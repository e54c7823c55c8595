"""The published models against their authors': parameters to the last digit, MACs where they were counted."""

from __future__ import annotations

import pytest
import torch

import models
import models.__main__ as listing
from models import MixerSpec
from models.presets import published_mixers
from models.published import MODELS
from models.spec import GenerativeSpec, listed
from operators import InputError, registry
from operators.shell.spec import resolve

QUICK = (
    *("poolformer_s12", "mila_t", "efficientvim_m1", "caformer_s18", "swin_t", "mambavision_t", "u_swin_micro"),
    *("deit_ti", "gfnet_xs", "vit3_t", "vil_t", "vrwkv_t", "resmlp_s12"),
    *("dig_s_2", "dico_s"),
)
"""Of each trunk one; the others are slow."""


def made(name: str) -> models.Trunk:
    model = MODELS[name]
    with torch.device("meta"):
        return models.create(
            name, image_size=model.image_size, in_channels=model.in_channels, num_classes=model.num_classes
        )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_sizes_are_the_authors_but_for_what_is_said(name: str) -> None:
    model, trunk = MODELS[name], made(name)
    cost = trunk.cost()
    counted = sum(parameter.numel() for parameter in trunk.parameters())
    assert counted - model.parameters == sum(deviation.parameters for deviation in model.deviations)
    assert cost.parameters == counted
    if model.macs is not None and model.macs_counted:
        ours = cost.macs / 1e9 - sum(deviation.macs for deviation in model.deviations)
        assert ours == pytest.approx(model.macs, rel=0.01)
    images = torch.empty(2, model.in_channels, *model.image_size, device="meta")
    if isinstance(model.spec, GenerativeSpec):
        time, label = torch.empty(2, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
        assert trunk(images, time, label).shape == images.shape
    else:
        assert trunk(images).shape == (2, model.num_classes)


def test_scores_of_a_mixers_card_are_not_contradicted() -> None:
    """What a card says of a model of the same name is what is recorded here."""
    both = 0
    for model in MODELS.values():
        for name in {spec.name for spec in listed(model.mixers)}:
            for number in registry.describe(name).published:
                if number.model.split(" (soft")[0] == model.title and number.quantity.startswith("ImageNet-1k"):
                    assert model.score == number.value, model.title
                    both += 1
    assert both >= 15


def test_every_shell_and_parameter_is_known() -> None:
    for model in MODELS.values():
        for spec in listed(model.mixers):
            registry.check(spec.name, spec.params, spec.shell, spec.backend)
            assert resolve(spec.shell, registry.describe(spec.name).shells, spec.name) is not None


def test_a_published_trunk_takes_other_mixers_and_other_sizes() -> None:
    shape = {"image_size": (32, 32), "in_channels": 1, "num_classes": 4}
    own = models.create("vssd_t", **shape, dim=16, depth=4)
    other = models.create("vssd_t", **shape, dim=16, depth=4, mixers=MixerSpec("conv"))
    assert [mixer.card.name for mixer in own.mixers] == ["vssd", "vssd", "vssd", "attention"]
    assert {mixer.card.name for mixer in other.mixers} == {"conv"}
    trunk = {name: value for name, value in own.state_dict().items() if ".mixer." not in name}
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in trunk.items())
    assert own(torch.randn(2, 1, 45, 32)).shape == (2, 4)
    with pytest.raises(InputError, match="model=vit_tiny is a trunk for any mixer: mixer=published goes with "):
        models.create("vit_tiny", **shape)
    with pytest.raises(InputError, match=r"model='vsd_t' is not known: .*; did you mean 'vssd_t'"):
        published_mixers("vsd_t")


def test_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main([]) == 0
    shown = capsys.readouterr().out
    for name, model in MODELS.items():
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert f"{model.parameters:,}" in line
        assert set(model.title.split()) <= set(shown.split())
    assert "pyramid_nano" in shown


def test_describing_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["efficientvim_m1"]) == 0
    shown = capsys.readouterr().out
    assert "6,679,458 (the authors' model)" in shown
    assert "Here, for images of 3×224×224: 6,679,292 parameters, 236M MACs" in shown
    assert "-166 parameters: no number per state" in shown
    assert "hsm_ssd state_dim=25 shell=published" in shown
    assert listing.main(["pyramid_tiny"]) == 0
    assert "stem=two" in capsys.readouterr().out
    assert listing.main(["pyramid_tyni"]) == 2
    assert "did you mean 'pyramid_tiny'?" in capsys.readouterr().err
