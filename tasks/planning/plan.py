"""mode=plan: what a run would cost, without training it and without its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

import models
import tasks.data
from models.targets import TIME, unmeasured
from operators.command_line import console
from operators.errors import InputError
from tasks.config import bounds
from tasks.config.images import Images
from tasks.config.schema import RunConfig
from tasks.config.task import GenerationConfig
from tasks.data import KeyedData
from tasks.planning.calibrate import Rates, measure
from tasks.planning.estimate import Work, estimate
from tasks.planning.memory import device
from tasks.planning.simulate import materialise, simulated
from tasks.run.building import dtypes
from tasks.system import results

MOST_BLOCKS = 1000
"""Beyond this a plan would take minutes."""


def carry_out(run: RunConfig, run_dir: Path) -> dict[str, Any]:
    """Estimate a run, print the result, and leave `plan.json` and `config.yaml`.

    Args:
        run: of mode=plan.
        run_dir: made if need be.

    Returns:
        the content of `plan.json`: flat; `memory/…` in bytes on one device, `throughput/…` in images a second of all
        devices together, null where unknown; `notes` says what the numbers rest on, and what is missing.

    Raises:
        InputError: a configuration that cannot be carried out, or a directory that holds a run.
    """
    if any((run_dir / name).exists() for name in ("metrics.json", "checkpoints", "plan.json")):
        raise InputError(f"{run_dir} already holds a run: choose another directory")
    facts = make(run)
    run_dir.mkdir(parents=True, exist_ok=True)
    results.write_yaml(run_dir / "config.yaml", run.plain)
    results.write_json(run_dir / "plan.json", facts)
    out = console()
    out.print(table(facts))
    for note in facts["notes"]:
        out.print(f"- {note}", highlight=False, soft_wrap=True)
    out.print(f"plan: {os.path.relpath(run_dir / 'plan.json')}", soft_wrap=True, highlight=False)
    return facts


def make(run: RunConfig) -> dict[str, Any]:
    """The content of `plan.json`, see `carry_out`."""
    with bounds.overflow_refused():
        return _make(run)


def _make(run: RunConfig) -> dict[str, Any]:
    depth = run.model.get("depth")
    if isinstance(depth, int) and depth > MOST_BLOCKS:
        raise InputError(f"model.depth={depth}: mode=plan works through every block, of {MOST_BLOCKS} at most")
    data = tasks.data.describe(**{"seed": run.seed, **run.data})
    kind, here = device(run.trainer.accelerator)
    processes = _processes(run, kind if here else None)
    if data.batch_size % processes:
        raise InputError(f"data.batch_size={data.batch_size} must be divisible by the {processes} devices of this run")
    batch = data.batch_size // processes
    images = run.images(data)
    model = run.build(images, device="meta")
    cost = model.cost()
    memory, training, inference = estimate(run, data, images, batch=batch, processes=processes)
    notes = ["estimates; memory is counted operation by operation with the CPU's kernels, without their scratch space"]
    if isinstance(run.task, GenerationConfig) and run.task.autoencoder is not None:
        notes.append("the autoencoder's memory and time are not counted")
    notes += _notes(run, kind, here)
    rates = _rates(run, model, data, torch.device(kind) if here else None, batch)
    facts: dict[str, Any] = {
        "mode": "plan",
        "status": "ok",
        "task": run.task.name,
        "mixer": run.mixer,
        "shell": run.shell,
        "model": run.model["name"],
        "data": data.name,
        "seed": run.seed,
        "image_size": list(data.image_size),
        "input": list(images.input),
        "params": cost.parameters,
        "macs": cost.macs,
        "mixer_macs": cost.mixer_macs,
        "backend": _backend(run, images, kind) if here else None,
        "device": kind,
        "devices": processes,
        "precision": run.trainer.precision,
        "batch": batch,
        "inference_batch": inference.images,
        **{f"memory/{name}": value for name, value in asdict(memory).items()},
        "memory/training": memory.training,
        "throughput/training_low": None,
        "throughput/training_high": None,
        "throughput/inference_low": None,
        "throughput/inference_high": None,
        "rates/source": None,
    }
    if rates is not None:
        facts |= _throughput(rates, processes, training=training, inference=inference)
        notes.append(_assumption(rates))
    return {**facts, "notes": notes}


def table(facts: Mapping[str, Any]) -> Table:
    """The plan for the terminal."""
    size = "×".join(map(str, facts["image_size"]))
    shown = Table(show_header=False, title=f"plan of {facts['task']}: {facts['mixer']} in {facts['model']}, {size}")
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(justify="right")
    shown.add_row("parameters", f"{facts['params']:,}")
    shown.add_row("MACs an image", f"{facts['macs']:,}")
    shown.add_row("  mixers", f"{facts['mixer_macs']:,}")
    shown.add_row("  rest", f"{facts['macs'] - facts['mixer_macs']:,}")
    shown.add_row(
        f"memory of training ({facts['batch']} images, {facts['precision']})", _bytes(facts["memory/training"])
    )
    for name in ("weights", "gradients", "optimizer", "average", "buckets", "activations"):
        if facts[f"memory/{name}"]:
            shown.add_row(f"  {name}", _bytes(facts[f"memory/{name}"]))
    shown.add_row(f"memory of inference ({facts['inference_batch']} images)", _bytes(facts["memory/inference"]))
    for name in ("training", "inference"):
        low, high = facts[f"throughput/{name}_low"], facts[f"throughput/{name}_high"]
        if high is not None:
            lower = "?" if low is None else _rate(low)
            shown.add_row(f"images a second, {name} (estimate)", f"{lower} … {_rate(high)}")
    shown.add_row("devices", f"{facts['devices']} × {facts['device']}")
    shown.add_row("backend", facts["backend"] or "not known")
    return shown


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _bytes(number: int) -> str:
    return f"{number / 2**30:,.2f} GiB" if number >= 2**30 else f"{number / 2**20:,.2f} MiB"


def _processes(run: RunConfig, device: str | None) -> int:
    devices = run.trainer.devices
    if devices == "auto":
        if device is None:
            raise InputError("trainer.devices=auto counts this machine's GPUs, and there is none: give a number")
        devices = torch.cuda.device_count() if device == "cuda" else 1
    return int(devices) * run.trainer.num_nodes


def _backend(run: RunConfig, images: Images, device: str) -> str:
    model = run.build(images, device="meta")
    with simulated():
        materialise(model, device)
    return model.backend


def _rates(
    run: RunConfig, model: models.Trunk, data: KeyedData, device: torch.device | None, batch: int
) -> Rates | None:
    """What the run's device does in a second: as told, else as measured, None where neither is possible."""
    assert run.plan is not None
    peak, bandwidth = run.plan.peak_tflops, run.plan.bandwidth
    if peak is not None:
        rate = None if bandwidth is None else bandwidth * 1e9
        return Rates(peak * 1e12 / 2, rate, 0.0, "plan.peak_tflops and plan.bandwidth")
    if bandwidth is not None:
        raise InputError("plan.bandwidth needs plan.peak_tflops beside it: the rates of one device")
    if device is None:
        return None
    tokens = batch * model.grid[0] * model.grid[1]
    shape = (tokens, model.spec.dims[0], model.spec.ffn_width or model.spec.dims[0])
    return measure(device, dtypes(run.trainer.precision)[1], shape)


def _throughput(rates: Rates, processes: int, **work: Work) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rates/source": rates.source,
        "rates/tflops": 2 * rates.macs / 1e12,
        "rates/bandwidth": None if rates.bandwidth is None else rates.bandwidth / 1e9,
    }
    for name, part in work.items():
        low, high = part.images_per_second(rates)
        facts[f"throughput/{name}_low"] = None if low is None else processes * low
        facts[f"throughput/{name}_high"] = processes * high
    return facts


def _assumption(rates: Rates) -> str:
    low = "the lower end needs plan.bandwidth"
    if rates.bandwidth is not None:
        calls = f" and {1e6 * rates.call:.1f} µs a call" if rates.call else ""
        speed = f"{rates.bandwidth / 1e9:.3g} GB/s of element-wise work"
        low = f"low: plus all reads and writes at {speed}{calls}, one by one"
    return (
        f"throughput, high: all MACs at {2 * rates.macs / 1e12:.3g} TFLOP/s of matrix products, three times forward's "
        f"in training; {low}; {rates.source}; loading data and communication not counted"
    )


def _notes(run: RunConfig, device: str, here: bool) -> list[str]:
    notes = []
    budget = run.model.get("match")
    if budget is not None and unmeasured(budget):
        notes.append(
            f"model.match.time={1e3 * budget[TIME]:g}ms: a run first measures training steps at several widths, for "
            "some seconds, and takes the width whose steps last that long; the numbers here are of model.hidden=null"
        )
    if not here:
        notes.append(f"no {device} device here: its backend is not known, and its speed only by plan.peak_tflops")
    if run.trainer.compile:
        notes.append("torch.compile fuses operations: it needs less than this")
    if run.trainer.strategy not in ("auto", "ddp"):
        notes.append(f"trainer.strategy={run.trainer.strategy}: what it shares between devices is counted in full here")
    return notes
