"""What a budget of state means for the configuration: the parameter that scales the state of the mixer."""

from __future__ import annotations

from pathlib import Path

import pytest

from operators import InputError
from tasks.config.composition import compose
from tests.tasks.conftest import Fit

STATE = "model.match={state: 6272}"


def test_parameter_is_where_the_configuration_has_it() -> None:
    hybrid = compose(["mixer=hybrid", "mixer.pattern=[pde_ssm,mamba]", STATE])
    assert (hybrid["pde"]["state"], hybrid["mixer"]["params"]) == (2, {"mamba": {"state_dim": 49}})
    assert hybrid["model"]["hidden"] is None
    alone = compose(["mixer=mamba", STATE, "model.hidden=64"])
    assert (alone["mixer"]["state_dim"], alone["model"]["hidden"]) == (49, 64)


def test_what_the_budget_decides_may_not_be_given() -> None:
    with pytest.raises(InputError, match=r"pde\.state and model\.match\.state exclude each other"):
        compose(["mixer=pde_ssm", "pde.state=8", STATE])


def test_run_records_its_state_and_is_continued_with_it(fit: Fit, tmp_path: Path) -> None:
    metrics = fit("run", "mixer=pde_ssm", "model.match={state: 1600}")
    assert (metrics["match/budget"], metrics["match/value"]) == ("state", 1568)
    assert metrics["match/residual"] == pytest.approx(-0.02)
    again = compose([f"ckpt={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}", "model.match={state: 1600}"])
    assert again["pde"]["state"] == 2
