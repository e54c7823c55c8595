"""The analysis reads curves from the logs of runs and refuses what is not the directory of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.analysis import curves
from ablations.statistics import (
    t_interval,
)
from operators.errors import InputError
from tests.ablations import fake_study
from tests.ablations.analysis.simple_study import analyse, simple


def test_curves_are_read_from_both_logs_though_still_being_written(tmp_path: Path) -> None:
    fake_study.events(tmp_path, "val/accuracy", [0.1, 0.2, 0.3], cut=9)
    assert curves.read(tmp_path, "val/accuracy") == {10: pytest.approx(0.1), 20: pytest.approx(0.2)}
    assert curves.read(tmp_path, "val/loss") == {}
    table = tmp_path / "csv"
    table.mkdir()
    (table / "metrics.csv").write_text("epoch,step,val/accuracy\n0,9,\n0,10,0.5\n1,20,0.75\n")
    assert curves.read(table, "val/accuracy") == {10: 0.5, 20: 0.75}


def test_bands_are_over_the_curves_that_reach_so_far() -> None:
    band = curves.band([{1: 0.1, 2: 0.4}, {1: 0.3}], 0.95)
    interval = t_interval([0.1, 0.3])
    assert band[0] == {"step": 1, "mean": 0.2, "low": interval.low, "high": interval.high, "n": 2}
    assert (band[1]["step"], band[1]["n"]) == (2, 1)
    # Logged at other steps: no mean over whichever curves happen to be there.
    assert [point["step"] for point in curves.band([{1: 0.1, 3: 0.4}, {2: 0.3, 3: 0.3}], 0.95)] == [3]


def test_wrong_directories_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not the directory of a study: it has no study\.yaml"):
        analyse(tmp_path)
    path = simple(tmp_path / "s", {"a": [0.5], "b": [0.6]}).write()
    table = (path / "trials.csv").read_text()
    for old, new, message in [
        (",complete,", ",done,", r"trial 0: state='done'.*complete"),
        ("mixer=a,0", "mixer=a,zero", "trial 0: "),
        ("number,", "n,", "lacks the columns number"),
    ]:
        (path / "trials.csv").write_text(table.replace(old, new, 1))
        with pytest.raises(InputError, match=message):
            analyse(path)
    fake = simple(tmp_path / "t", {"a": [0.5], "b": [0.6]})
    fake.rows[0]["factor/mixer"] = "z"
    with pytest.raises(InputError, match="factor mixer"):
        analyse(fake.write())
