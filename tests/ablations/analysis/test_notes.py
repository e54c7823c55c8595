"""The notes of a summary name every gap, every difference between runs and every doubt about tuning."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ablations import fake_study
from tests.ablations.analysis.simple_study import DIFFUSION, NOTHING, analyse, by_name, simple


def test_trials_that_give_no_score_are_counted_and_left_out(tmp_path: Path) -> None:
    states = {
        (DIFFUSION, 1): "diverged",
        ("identity", 0): "failed",
        ("identity", 1): "running",
        (NOTHING, 2): "waiting",
    }
    path = fake_study.pde_terms(
        tmp_path / "s", state=lambda block, arm, seed: states.get((arm, seed), "complete"), blocks=("initial",)
    )
    summary = analyse(path)
    progress = summary["progress"]
    assert [progress[key] for key in ("planned", "ended", "diverged", "failed", "running", "waiting")] == [
        27, 25, 1, 1, 1, 1,
    ]  # fmt: skip
    arms = by_name(summary["blocks"][0]["objectives"][0]["arms"], "arm")
    assert (arms[DIFFUSION]["n"], arms[DIFFUSION]["diverged"]) == (2, 1)
    assert arms[DIFFUSION]["pairs"] == 1
    assert arms[DIFFUSION]["difference_half"] is None
    assert (arms["identity"]["n"], arms["identity"]["half"]) == (1, None)
    notes = "\n".join(summary["notes"])
    for said in ("2 of 27 trials have not ended", f"1 trial diverged, which is a result: {DIFFUSION}", "1 trial failed",
                 "arms of which a run diverged, it counts as the worst", "left out of paired differences"):  # fmt: skip
        assert said in notes


def test_a_study_that_has_only_begun(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", state=lambda block, arm, seed: "waiting", logs=False)
    summary = analyse(path)
    assert "no trial has a test accuracy yet" in summary["answer"]
    assert summary["blocks"][0]["objectives"][0]["effects"] == []


def test_one_seed_gives_no_interval_and_strict_json(tmp_path: Path) -> None:
    path = simple(tmp_path / "s", {"identity": [0.7], "attention": [0.8]}).write()
    analyse(path)

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    summary = json.loads((path / "summary.json").read_text(), parse_constant=refuse)
    result = summary["blocks"][0]["objectives"][0]
    assert [row["half"] for row in result["arms"]] == [None, None]
    assert any("no degree of freedom" in line for line in summary["notes"])
    said = "Mixer attention rather than identity adds 10.00 points of test accuracy"
    assert summary["answer"] == f"{said} (too few runs for an interval, 1 seed)."


def test_arm_that_varies_more_than_others_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scores = {arm: (0.5 + rng.normal(scale=0.002, size=5)).tolist() for arm in "abcdefgh"}
    assert not any("Cochran" in line for line in analyse(simple(tmp_path / "s", scores).write())["notes"])
    scores["c"] = [0.4, 0.6, 0.45, 0.55, 0.5]
    (said,) = (line for line in analyse(simple(tmp_path / "t", scores).write())["notes"] if "Cochran" in line)
    assert said.startswith("the scores of c vary more over seeds than those of other arms (")


def test_what_differs_between_runs_is_said(tmp_path: Path) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6]})
    other = fake_study.provenance(1, git={"revision": "f" * 40, "dirty": True}, data={"name": "m", "fingerprint": "x"})
    (tmp_path / "s" / "trials" / "00001" / "provenance.json").write_text(json.dumps(other))
    (tmp_path / "s" / "trials" / "00003" / "provenance.json").unlink()
    fake.rows[2] |= {"params": 300_000, "macs": 20_000_000}
    summary = analyse(fake.write())
    notes = "\n".join(summary["notes"])
    for said in ("2 different revisions", "2 different contents (fingerprints) of mini", "no provenance.json",
                 "budgets are not matched"):  # fmt: skip
        assert said in notes
    assert {one["value"]: one["runs"] for one in summary["provenance"]["revision"]} == {
        fake_study.REVISION: 2,
        f"{'f' * 40} with uncommitted changes": 1,
    }


@pytest.mark.parametrize(
    ("tuned", "words", "note"),
    [
        (("true", "true"), ["tuned", "tuned"], ""),
        (("false", "false"), ["untuned", "untuned"], "untuned: every arm"),
        (("false", "true"), ["untuned", "tuned"], "tuned in 1 of 2 arms only"),
    ],
)
def test_untuned_learning_rates_are_said(tmp_path: Path, tuned: tuple[str, str], words: list[str], note: str) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6]})
    for row in fake.rows:
        row["tuned"] = tuned[row["arm"] == "mixer=b"]
    summary = analyse(fake.write())
    arms = by_name(summary["blocks"][0]["objectives"][0]["arms"], "arm")
    assert [arms[f"mixer={name}"]["tuning"] for name in "ab"] == words
    said = [line for line in summary["notes"] if "tuned" in line]
    assert (note in said[0]) if note else not said


def test_rates_at_the_end_of_their_range_are_said(tmp_path: Path) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6], "c": [0.7, 0.7]})
    chosen = {"mixer=a": 0.004, "mixer=b": 0.002, "mixer=c": 0.001}
    for row in fake.rows:
        row["learning_rate"] = chosen[row["arm"]]
    block = fake.rows[0]["block"]
    for number, (arm, rate) in enumerate((arm, rate) for arm in chosen for rate in (0.001, 0.002, 0.004)):
        row = {**fake.rows[0], "number": 100 + number, "block": f"tuning of {block}", "arm": arm, "learning_rate": rate}
        fake.rows.append(row)
    notes = [line for line in analyse(fake.write())["notes"] if "tuning chose" in line]
    assert notes == [
        f"tuning chose the {word} rate that it tried in 1 of 3 arms: a better one may lie beyond"
        for word in ("highest", "lowest")
    ]


@pytest.mark.parametrize(
    ("tuning", "warned"),
    [({"once": True, "seed": 3}, "at seed 3"), ({"seed": 2}, "at seed 2"), ({"once": False}, ""), ({}, "at seed 0")],
    ids=["once", "an older study", "inside seeds", "an older study without a seed"],
)
def test_a_choice_for_all_seeds_is_said_above_the_numbers(tmp_path: Path, tuning: dict[str, Any], warned: str) -> None:
    plan = {"tuning": {"key": "optimizer.lr", "levels": [0.001, 0.002], **tuning}, "seeds": 2}
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6]}, **plan)
    block = fake.rows[0]["block"]
    for number, row in enumerate(list(fake.rows)):
        fake.rows.append({**row, "number": 100 + number, "block": f"tuning of {block}", "learning_rate": 0.001})
    notes = [line for line in analyse(fake.write())["notes"] if "chosen once" in line]
    assert len(notes) == bool(warned)
    assert warned in "".join(notes)


def test_arms_matched_in_time_or_state_are_not_called_unmatched(tmp_path: Path) -> None:
    """Their parameters and MACs differ then, as they have to."""

    def notes(name: str, budget: str | None) -> str:
        path = fake_study.costed(tmp_path / name, **({} if budget is None else {"match/budget": budget}))
        table = list(csv.DictReader((path / "trials.csv").read_text().splitlines()))
        for place, row in enumerate(table):
            row |= {"params": str(1000 * (place + 1)), "macs": str(9000 * (place + 1))}
        with (path / "trials.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        return " ".join(analyse(path)["notes"])

    assert "budgets are not matched" in notes("none", None)
    assert "budgets are not matched" not in notes("time", "time")
