"""Mixers stage by stage, and published models, in a run's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from models.presets import published_mixers
from models.published import MODELS
from models.spec import DiTSpec, StageMixers
from operators import InputError
from tasks.config.composition import compose, read
from tasks.config.mixers import written
from tasks.config.schema import mixer_specs

NANO = ("model=pyramid_nano", "mixer=stages")


def test_one_override_sets_trunk_and_mixers() -> None:
    run = read(["model=vssd_t"])
    assert run.mixers == mixer_specs(
        {"name": "stages", "stages": written(published_mixers("vssd_t"))}, {"name": "common"}, None
    )
    assert (run.mixer, run.shell, run.model["name"]) == ("vssd+attention", "published", "vssd_t")
    assert "pde" not in run.plain
    assert run.plain["mixer"]["stages"][3] == [{"name": "attention", "heads": 16, "shell": {"name": "published"}}]


@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_survives_being_written_down(name: str) -> None:
    mixers = MODELS[name].mixers
    again = mixer_specs({"name": "stages", "stages": written(mixers)}, {"name": "common"}, None)
    assert isinstance(again, StageMixers)
    for stage, other in zip(mixers.stages, again.stages, strict=True):
        for spec, copy in zip(stage, other, strict=True):
            assert (spec.name, dict(spec.params)) == (copy.name, dict(copy.params))
    assert written(again) == written(mixers)


def test_a_published_trunk_takes_another_mixer() -> None:
    run = read(["model=mila_t", "mixer=attention", "mixer.heads=2", "shell.gate=none"])
    assert (run.mixer, run.shell) == ("attention", "common")
    task = ["task=generation", "model=dig_s_2"]
    assert isinstance(MODELS["dig_s_2"].spec, DiTSpec)
    assert read(task).mixer == "gla"


def test_stages_with_parameters_shells_and_a_pde() -> None:
    stages = "mixer.stages=[conv,{name: attention, heads: 2, shell: {name: published, gate: silu}},[pool,pde_ssm]]"
    run = read([*NANO, stages, "pde.state=2", "shell.gate=none"])
    assert isinstance(run.mixers, StageMixers)
    (conv,), (attention,), (pool, pde) = run.mixers.stages
    assert (conv.name, attention.params, pool.name, pde.params["state"]) == ("conv", {"heads": 2}, "pool", 2)
    assert [spec.shell["gate"] for spec in (conv, attention, pool, pde)] == ["none", "silu", "none", "none"]
    assert run.mixer == "conv+attention+pool+pde_ssm"
    assert "pde" not in compose([*NANO, "mixer.stages=[conv,conv,pool]"])


def test_a_budget_of_states_is_written_where_each_stage_has_it() -> None:
    run = read([*NANO, "mixer.stages=[ss2d,[{name: ss2d, rank: 2},mamba],vssd]", "model.match={state: 2048}", *_SMALL])
    assert run.plain["mixer"]["stages"] == [
        [{"name": "ss2d", "state_dim": 16}],
        [{"name": "ss2d", "rank": 2, "state_dim": 8}, {"name": "mamba", "state_dim": 16}],
        [{"name": "vssd", "state_dim": 16}],
    ]


_SMALL = ("model.dim=32", "model.depth=4", "shell.expand=1")

BAD: list[tuple[list[str], str]] = [
    (["mixer=published"], r"model=vit_nano is a trunk for any mixer: mixer=published goes with poolformer_s12, "),
    (["model=mila_t", "shell.expand=2"], r"shell.expand does not go with mixer=published"),
    (["model=vsd_t"], r"model='vsd_t' is not known: .* did you mean 'vssd_t'\?"),
    ([*NANO, "mixer.stages=[conv,conv,pool]", "pde.state=2"], r"pde.state does not exist here"),
    ([*NANO, "mixer.stages=[conv,{heads: 2},pool]"], r"mixer.stages\[1\]: \{'heads': 2\} must be a mixer's name"),
    ([*NANO, "mixer.stages=[conv,[],pool]"], r"mixer.stages\[1\] is empty"),
    ([*NANO, "mixer.stages=conv"], r"mixer.stages='conv' must be a list"),
    ([*NANO, "mixer.stages=[conv,{name: attention, haeds: 2},pool]"], r"mixer attention has no 'haeds'.*'heads'"),
    ([*NANO, "mixer.stages=[conv,{name: conv, shell: 3},pool]"], r"mixer.stages\[1\]: shell=3 must be a preset's name"),
    (["model=dig_s_2"], r"model=dig_s_2 is not made for task=classification: take vit_\* or pyramid_\*"),
    (["task=generation", "model=pyramid_nano"], r"model=pyramid_nano is not made for task=generation: take dit_\*"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[" ".join(given)[:50] for given, _ in BAD])
def test_what_cannot_be_is_refused_in_one_line(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(given)
    assert "\n" not in str(caught.value)


def test_two_stages_for_three_are_refused() -> None:
    from tasks import data
    from tasks.config.images import Images

    run: Any = read([*NANO, "mixer.stages=[conv,pool]"])
    with pytest.raises(InputError, match="mixers for 2 stages do not fit a trunk that has 3"):
        run.build(Images.of(data.describe(**run.data), (1, 28, 28)), device="meta")
