"""Study directories as the runner leaves them, with scores that are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

REVISION = "0123456789abcdef0123456789abcdef01234567"
COLUMNS = ("number", "block", "arm", "seed", "state", "run_dir", "attempts", "seconds")


class FakeStudy:
    """Collects trials and writes them."""

    def __init__(self, path: Path, **plan: Any) -> None:
        self.path = path
        self.plan = {"name": path.name, "question": "What is it worth?", "kind": "factorial", **plan}
        self.rows: list[dict[str, Any]] = []

    def trial(
        self,
        arm: str,
        seed: int,
        metrics: Mapping[str, Any] | None = None,
        *,
        block: str = "main",
        state: str = "complete",
        levels: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> Path:
        """Add a trial; `run` changes its provenance."""
        number = len(self.rows)
        folder = self.path / "trials" / f"{number:05d}"
        row: dict[str, Any] = dict(zip(COLUMNS, (number, block, arm, seed, state, "", 1, ""), strict=True))
        if state != "waiting":
            folder.mkdir(parents=True)
            row |= {"run_dir": f"trials/{number:05d}"}
        prefix = "factor/" if self.plan["kind"] == "factorial" else "param/"
        row |= {f"{prefix}{name}": level for name, level in (levels or {}).items()}
        if state in ("complete", "diverged"):
            costs = {"params": 200_000, "macs": 9_000_000, "mixer_macs": 3_000_000, "backend": "torch"}
            costs |= {"train/seconds": 60.0, "train/images_per_second": 500.0, "data": "mini", "seed": seed}
            row |= {"seconds": 61.5, **costs, "status": "ok" if state == "complete" else state, **(metrics or {})}
            (folder / "provenance.json").write_text(json.dumps(provenance(seed, **(run or {}))))
        self.rows.append(row)
        return folder

    def write(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "study.yaml").write_text(yaml.safe_dump(self.plan, sort_keys=False))
        columns = dict.fromkeys((*COLUMNS, *(key for row in self.rows for key in row)))
        with (self.path / "trials.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns), restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        return self.path


def provenance(seed: int, **changed: Any) -> dict[str, Any]:
    return {
        "command": ["-m", "study=fake"],
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "hardware": {"platform": "Linux", "cpu": "x", "cores": 2, "threads": 1, "gpus": [], "cuda": None},
        "git": {"revision": REVISION, "dirty": False},
        "seed": seed,
        "backend": "torch",
        "precision": "32-true",
        "effective_batch": 64,
        "world_size": 1,
        "data": {"name": "mini", "fingerprint": "ab9e0b6ed8cced063ed278d17aa34817"},
        "learning_rate_tuned": False,
        **changed,
    }


def predictions(folder: Path, right: Sequence[bool], classes: int = 3) -> None:
    """predictions.npz of a run that gets these test images right."""
    label = np.arange(len(right)) % classes
    logits = np.eye(classes, dtype=np.float32)[np.where(right, label, (label + 1) % classes)]
    np.savez_compressed(folder / "predictions.npz", index=np.arange(len(right)), label=label, logits=logits)


def events(folder: Path, metric: str, values: Sequence[float], every: int = 10, cut: int = 0) -> None:
    """A TensorBoard log with the metric at steps every, 2 every, …; its last `cut` bytes are not written yet."""
    written = b""
    for place, value in enumerate(values):
        summary = Summary(value=[Summary.Value(tag=metric, simple_value=value)])
        record = Event(step=every * (place + 1), summary=summary).SerializeToString()
        written += len(record).to_bytes(8, "little") + bytes(4) + record + bytes(4)
    (folder / "events.out.tfevents.1.host.1.0").write_bytes(written[: len(written) - cut])


def sheet(folder: Path, shade: int) -> None:
    """A sheet of samples."""
    (folder / "samples").mkdir()
    row, column = np.mgrid[:224, :280]
    pixels = ((row // 28 + column // 28) % 2 * 120 + shade + (row * column) % 29).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "samples" / "sheet.png")


TERMS = ("convection", "diffusion", "reaction")


def pde_terms(
    path: Path,
    seeds: int = 3,
    *,
    effects: Mapping[str, float] | None = None,
    noise: float = 0.004,
    state: Callable[[str, str, int], str] = lambda block, arm, seed: "complete",
    blocks: Sequence[str] = ("initial", "constant"),
    logs: bool = True,
    asks: Sequence[str] = (),
) -> Path:
    """Two blocks of a 2³ factorial with `identity` beside it; effects are those of the initial block, in accuracy."""
    worth = {"diffusion": 0.031, "convection": 0.012, "convection:diffusion": 0.008} if effects is None else effects
    draw = np.random.default_rng(1)
    factors = {name: {"key": "pde.terms", "levels": [[], [name]], "labels": ["off", "on"]} for name in TERMS}
    plan = [
        {"name": name, "overrides": [], "factors": factors, "design": "full", "reference": dict.fromkeys(TERMS, "off"),
         "negative_controls": ["reaction"] if name == "initial" else [], "asks": list(asks)}
        for name in blocks
    ]  # fmt: skip
    objectives = [{"metric": "test/accuracy", "direction": "maximize"}]
    question = "What are the terms of the PDE worth in classification?"
    study = FakeStudy(path, question=question, blocks=plan, seeds=seeds, objectives=objectives)
    of_seed = draw.normal(0, 0.01, seeds)
    for block in blocks:
        cells: list[tuple[bool, ...] | None] = [*product((False, True), repeat=3), None]
        for cell in cells:
            switched = dict(zip(TERMS, cell, strict=True)) if cell else dict.fromkeys(TERMS, False)
            levels = {name: "on" if on else "off" for name, on in switched.items()} if cell else None
            arm = " ".join(f"{name}={level}" for name, level in levels.items()) if levels else "identity"
            for seed in range(seeds):
                score = 0.82 + of_seed[seed] + draw.normal(0, noise)
                for name, size in worth.items():
                    sign = np.prod([1 if switched[one] else -1 for one in name.split(":")])
                    score += sign * size / 2
                now = state(block, arm, seed)
                metrics = {"test/accuracy": score, "test/loss": 1 - score, "val/accuracy": score - 0.002}
                metrics["params"] = 200_000 + 500 * sum(switched.values())
                metrics = {} if now == "diverged" else metrics
                folder = study.trial(arm, seed, metrics, block=block, state=now, levels=levels)
                if now == "complete":
                    predictions(folder, (draw.random(200) < score).tolist())
                if now in ("complete", "running") and logs:
                    values = score - 0.3 * np.exp(-np.arange(1, 11) / 3) + draw.normal(0, 0.003, 10)
                    events(folder, "val/accuracy", values.tolist()[: 10 if now == "complete" else 4], every=78)
    return study.write()


def mixers(path: Path, seeds: int = 3) -> Path:
    """Five arms of generation, of which one diverges at a seed; the learning rates of some are tuned."""
    draw = np.random.default_rng(2)
    worth = {"identity": 0.42, "attention": 0.301, "pde_ssm": 0.295, "mamba": 0.312, "pom": 0.33}
    factors = {"mixer": {"key": "mixer", "levels": list(worth)}}
    block = {"name": "generation", "factors": factors, "design": "full", "reference": {"mixer": "attention"}}
    objectives = [{"metric": "test/loss", "direction": "minimize"}]
    study = FakeStudy(
        path,
        blocks=[block],
        seeds=seeds,
        objectives=objectives,
        select={"metric": "val/loss", "direction": "minimize"},
        question="Which mixer generates best at a matched budget?",
    )
    for arm, score in worth.items():
        for rate in (0.002, 0.004):
            metrics = {"val/loss": score + rate, "learning_rate": rate}
            study.trial(f"mixer={arm}", 0, metrics, block="tuning of generation", levels={"mixer": arm})
    for place, (arm, score) in enumerate(worth.items()):
        for seed in range(seeds):
            diverged = arm == "pom" and seed == 1
            metrics = {"test/loss": score + draw.normal(0, 0.004), "params": 200_000 + 900 * place}
            metrics |= {"tuned": str(arm != "identity").lower(), "learning_rate": 0.002 if place % 2 else 0.004}
            folder = study.trial(
                f"mixer={arm}", seed, {} if diverged else metrics, block="generation", levels={"mixer": arm},
                state="diverged" if diverged else "complete",
            )  # fmt: skip
            if not diverged:
                sheet(folder, 20 * place)
                curve = score + 0.5 * np.exp(-np.arange(1, 9) / 2) + draw.normal(0, 0.01, 8)
                events(folder, "val/loss", curve.tolist(), every=100)
    return study.write()


ARMS = {  # accuracy, and the four costs
    "identity": (0.71, 6.0, 0.12, 60.0, 3.1), "conv": (0.835, 12.0, 0.25, 90.0, 5.0),
    "attention": (0.842, 31.0, 0.9, 220.0, 14.0), "pde_ssm": (0.851, 55.0, 1.6, 300.0, 11.0),
    "pom": (0.80, 14.0, 0.31, 95.0, 5.4), "ss2d": (0.80, 260.0, 8.8, 800.0, 41.0),
}  # fmt: skip
COSTS = ("train/step_ms", "inference/image_ms", "train/memory_mb", "inference/memory_mb")


def costed(path: Path, seeds: int = 3, noise: float = 0.05, **more: Any) -> Path:
    """Six arms whose training and inference were measured; the last cost is a count, without noise."""
    draw = np.random.default_rng(5)
    study = FakeStudy(path, seeds=seeds, **plan_of_mixers(list(ARMS)))
    for arm, (score, *costs) in ARMS.items():
        for seed in range(seeds):
            measured = {name: cost * np.exp(noise * draw.normal()) for name, cost in zip(COSTS, costs, strict=True)}
            measured |= {COSTS[-1]: costs[-1], "test/accuracy": score + 0.1 * noise * draw.normal(), **more}
            study.trial(f"mixer={arm}", seed, measured, levels={"mixer": arm})
    return study.write()


def plan_of_mixers(names: Sequence[str]) -> dict[str, Any]:
    """The plan of a factorial whose arms are these mixers."""
    factors = {"mixer": {"key": "mixer", "levels": list(names)}}
    return {"blocks": [{"name": "main", "factors": factors}], "objectives": [{"metric": "test/accuracy"}]}


def grid(path: Path, levels: Mapping[str, Sequence[Any]], seeds: int = 2, images: int = 0, steps: int = 0) -> Path:
    """A full grid, one point of accuracy for each step of a level, with predictions and logs if asked for."""
    draw = np.random.default_rng(4)
    factors = {
        name: {"key": f"mixer.f{place}", "levels": list(values)} for place, (name, values) in enumerate(levels.items())
    }
    block = {"name": "main", "factors": factors, "design": "full"}
    study = FakeStudy(path, blocks=[block], seeds=seeds, objectives=[{"metric": "test/accuracy"}])
    for places in product(*(range(len(values)) for values in levels.values())):
        cell = {name: values[place] for (name, values), place in zip(levels.items(), places, strict=True)}
        arm = " ".join(f"{name}={level}" for name, level in cell.items())
        for seed in range(seeds):
            score = 0.8 + 0.01 * sum(places) + draw.normal(0, 0.003)
            folder = study.trial(arm, seed, {"test/accuracy": score}, levels=cell)
            if images:
                predictions(folder, (draw.random(images) < score).tolist(), classes=10)
            if steps:
                events(folder, "val/accuracy", (score - np.geomspace(0.3, 0.01, steps)).tolist())
    return study.write()


def search(path: Path, kind: str, trials: int = 40) -> Path:
    """`tune`: accuracy depends on the learning rate alone; `pareto`: more width is better and dearer."""
    draw = np.random.default_rng(3)
    objectives = [{"metric": "val/accuracy", "direction": "maximize"}]
    if kind == "pareto":
        objectives.append({"metric": "macs", "direction": "minimize"})
    space = {
        "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "model.dim": {"low": 32, "high": 96, "int": True},
        "mixer.name": {"choices": ["attention", "pde_ssm"]},
    }
    study = FakeStudy(path, kind=kind, space=space, trials=trials, objectives=objectives, sampler="tpe")
    for number in range(trials):
        rate, width = 10 ** draw.uniform(-4, -1), int(draw.integers(4, 13)) * 8
        value = 0.85 - 0.04 * (np.log10(rate) + 2.5) ** 2 + draw.normal(0, 0.002)
        if kind == "pareto":
            value += 0.05 * np.log2(width / 32)
        state = {3: "pruned", 5: "diverged", 7: "failed", trials - 1: "running"}.get(number, "complete")
        metrics = {"val/accuracy": value, "macs": 1000 * width**2} if state == "complete" else {}
        levels = {"optimizer.lr": rate, "model.dim": width, "mixer.name": ("attention", "pde_ssm")[number % 2]}
        study.trial(f"trial {number}", 0, metrics, block="search", state=state, levels=levels)
    return study.write()


def budget(path: Path, seeds: int = 3, steps: Sequence[int] = (100, 200, 400, 800, 1600)) -> Path:
    """Three mixers along optimiser steps; identity is ahead early, attention late, pom never; rates tuned per seed."""
    draw = np.random.default_rng(5)
    worth = {"identity": (0.8, -0.05, 1.0), "attention": (0.9, -0.18, 0.5), "pom": (0.7, -0.1, 0.6)}
    factors = {
        "mixer": {"key": "mixer", "levels": list(worth)},
        "steps": {"key": "trainer.max_steps", "levels": list(steps), "role": "budget"},
    }
    study = FakeStudy(
        path,
        question="Which mixer learns fastest, and which gets furthest?",
        blocks=[{"name": "curves", "factors": factors}],
        seeds=seeds,
        objectives=[{"metric": "test/accuracy", "direction": "maximize"}],
        tuning={"key": "optimizer.lr", "levels": [0.001, 0.002, 0.004], "once": False},
    )
    of_seed = draw.normal(0, 0.004, seeds)
    for mixer, (limit, factor, exponent) in worth.items():
        for count in steps:
            levels = {"mixer": mixer, "steps": count}
            arm = f"mixer={mixer} steps={count}"
            for seed in range(seeds):
                score = limit + factor * (count / 100) ** -exponent + of_seed[seed] + draw.normal(0, 0.003)
                study.trial(arm, seed, {"test/accuracy": score, "val/accuracy": score}, block="curves", levels=levels)
                for place, rate in enumerate((0.001, 0.002, 0.004)):
                    tried = {"val/accuracy": score - 0.02 * place, "learning_rate": rate}
                    study.trial(arm, seed, tried, block="tuning of curves", levels=levels)
    return study.write()


def several_data_sets(path: Path, seeds: int = 3) -> Path:
    """Three mixers on four data sets; attention gains on each, but not alike; pom gains nothing."""
    draw = np.random.default_rng(6)
    gains = {"identity": (0, 0, 0, 0), "attention": (0.02, 0.05, 0.03, 0.04), "pom": (0.01, -0.01, 0.0, 0.0)}
    factors = {
        "mixer": {"key": "mixer", "levels": list(gains)},
        "images": {"key": "data", "levels": ["mini", "fashion_mnist", "cifar10", "imagenet"], "role": "datasets"},
    }
    study = FakeStudy(
        path,
        question="Which mixer is best on images of many kinds?",
        blocks=[{"name": "everywhere", "factors": factors}],
        seeds=seeds,
        objectives=[{"metric": "test/accuracy", "direction": "maximize"}],
    )
    for place, data in enumerate(factors["images"]["levels"]):
        of_seed = draw.normal(0, 0.01, seeds)
        for mixer, gain in gains.items():
            for seed in range(seeds):
                score = 0.9 - 0.15 * place + of_seed[seed] + gain[place] + draw.normal(0, 0.005)
                arm, levels = f"mixer={mixer} images={data}", {"mixer": mixer, "images": data}
                study.trial(arm, seed, {"test/accuracy": score}, block="everywhere", levels=levels)
    return study.write()
