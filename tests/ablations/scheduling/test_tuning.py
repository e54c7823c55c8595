"""Learning rates are tuned for each arm before its runs, and searches propose parameters."""

from __future__ import annotations

from typing import Any

import pytest

from ablations import plan as plans
from ablations.trials import expand
from tasks.system.signals import Stop, StoppedError
from tests.ablations.conftest import Bench, Runs, together


def test_each_arm_runs_with_the_learning_rate_tuned_for_it(bench: Bench, node: dict[str, Any], runs: Runs) -> None:
    node |= {"tuning": {"key": "optimizer.lr", "levels": [5e-4, 1e-3, 4e-3]}, "seeds": 1}
    runs.acts["00001"] = lambda: "diverged"  # the best level of the first arm
    ledger = bench.work(node)
    main = [entry for entry in ledger.entries() if entry.planned.stage == "main"]
    results = [entry.result or {} for entry in main]
    assert [result["learning_rate"] for result in results] == [5e-4, 1e-3, 1e-3, 1e-3, 1e-3]
    assert all(result["tuned"] for result in results)
    tuning = [entry.result or {} for entry in ledger.entries() if entry.planned.stage == "tuning"]
    assert not any(result["tuned"] or "test/accuracy" in result["metrics"] for result in tuning)
    assert runs.tuned == {
        f"{entry.planned.number:05d}": entry.planned.stage == "main" for entry in ledger.entries()
    }  # as provenance.json says


def test_the_learning_rate_is_chosen_anew_inside_each_seed(bench: Bench, node: dict[str, Any], runs: Runs) -> None:
    node |= {"tuning": {"key": "optimizer.lr", "levels": [5e-4, 1e-3]}, "seeds": 2}
    node["blocks"][0] |= {"factors": {"size": {"key": "mixer.size", "levels": [3, 5]}}, "also": []}
    tuning = [trial for trial in expand(plans.read(node), []) if trial.stage == "tuning"]
    spoilt = next(trial for trial in tuning if trial.seed == 1 and trial.tunes == 1e-3)  # best at seed 0
    runs.acts[f"{spoilt.number:05d}"] = lambda: "diverged"
    main = [entry for entry in bench.work(node).entries() if entry.planned.stage == "main"]
    rates = {(e.planned.arm, e.planned.seed): (e.result or {})["learning_rate"] for e in main}
    assert rates == {("size=3", 0): 1e-3, ("size=5", 0): 1e-3, ("size=3", 1): 5e-4, ("size=5", 1): 1e-3}


def test_the_learning_rate_may_be_chosen_once_for_all_seeds(bench: Bench, node: dict[str, Any], runs: Runs) -> None:
    node |= {"tuning": {"key": "optimizer.lr", "levels": [5e-4, 1e-3], "once": True, "seed": 3}, "seeds": 2}
    entries = bench.work(node).entries()
    tuning = [entry for entry in entries if entry.planned.stage == "tuning"]
    assert {entry.planned.seed for entry in tuning} == {3}
    assert len(tuning) == len(entries) - len(tuning)  # of each arm two levels, and two seeds
    assert {(e.result or {})["learning_rate"] for e in entries if e.planned.stage == "main"} == {1e-3}


@pytest.mark.parametrize(
    ("levels", "ran", "workers"),
    [
        pytest.param(
            [2e-3, 4e-3], [2e-3, 4e-3, 1e-3, 5e-4], 1, marks=pytest.mark.slow
        ),  # 2.5e-4 is not tried: 5e-4 is worse than 1e-3
        ([1.25e-4, 2.5e-4], [1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3], 3),  # as far as three levels go
        pytest.param([5e-4, 1e-3, 2e-3], [5e-4, 1e-3, 2e-3], 1, marks=pytest.mark.slow),
    ],
)
def test_tuning_goes_beyond_an_end_that_is_best(
    bench: Bench, node: dict[str, Any], runs: Runs, levels: list[float], ran: list[float], workers: int
) -> None:
    node |= {"tuning": {"key": "optimizer.lr", "levels": levels, "extend": 3}, "seeds": 1}
    node["blocks"][0] |= {"factors": {"size": {"key": "mixer.size", "levels": [3, 5]}}, "also": []}
    together(bench, node, workers)
    _, ledger = bench.join(node)
    entries = ledger.entries()
    assert {(entry.result or {})["learning_rate"] for entry in entries if entry.planned.stage == "main"} == {1e-3}
    tuning = [entry for entry in entries if entry.planned.stage == "tuning" and entry.planned.arm == "size=3"]
    assert [entry.planned.tunes for entry in tuning if entry.state == "complete"] == ran
    assert {entry.state for entry in tuning if entry.planned.tunes not in ran} == {"skipped"}
    assert len(tuning) == len(levels) + 6
    assert len(runs.begun) == 2 * (len(ran) + 1)  # each once
    assert all(entry.started == 1 for entry in entries)


def test_another_key_that_is_tuned_is_not_the_learning_rate(bench: Bench, node: dict[str, Any], runs: Runs) -> None:
    node |= {"tuning": {"key": "optimizer.weight_decay", "levels": [0.01, 0.1]}, "seeds": 1}
    bench.work(node)
    assert runs.tuned
    assert not any(runs.tuned.values())


def test_search_proposes_other_parameters_for_each_trial(bench: Bench, runs: Runs) -> None:
    node = {
        "name": "tune",
        "question": "?",
        "kind": "tune",
        "objectives": [{"metric": "val/accuracy"}],
        "trials": 12,
        "space": {"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}},
        "mixer_space": {"pool": {"mixer.size": {"choices": [3, 5]}}, "pde_ssm": {"pde.state": {"choices": [1, 4]}}},
    }
    ledger = bench.work(node)
    params = [(entry.result or {})["params"] for entry in ledger.entries()]
    assert len({one["optimizer.lr"] for one in params}) == 12
    assert {key for one in params for key in one} == {"optimizer.lr", "pde.state"}
    assert abs(ledger.study.best_params["optimizer.lr"] - 1e-3) < 5e-3
    assert all(1e-4 <= one["optimizer.lr"] <= 1e-1 for one in params)


def test_search_of_several_objectives_goes_on_with_what_was_proposed(bench: Bench, runs: Runs) -> None:
    node = {
        "name": "pareto",
        "question": "?",
        "kind": "pareto",
        "objectives": [{"metric": "val/accuracy"}, {"metric": "macs", "direction": "minimize"}],
        "trials": 8,
        "space": {"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}},
    }
    stop = Stop()

    def interrupted() -> None:
        stop.ask()
        raise StoppedError("SIGTERM")

    runs.acts["00005"] = interrupted
    proposed = bench.work(node, stop).entries()[5].attempts[0].params
    runs.acts.clear()
    ledger = bench.work(node)
    assert (ledger.entries()[5].result or {})["params"] == proposed
    assert [direction.name for direction in ledger.study.directions] == ["MAXIMIZE", "MINIMIZE"]
