"""Workers as tasks of a Ray cluster, which starts those again whose machine is gone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ray

from ablations.scheduling.engines.process import DIED, PATIENCE, Ending, Instructions, environment
from ablations.scheduling.engines.settings import EngineSettings
from operators.errors import InputError

_MEMORY = 100 * 2**20
"""Bytes of a local cluster's object store, which holds nothing but instructions."""


class RayEngine:
    """Ray finds room for each worker, and says what became of it."""

    def __init__(self, settings: EngineSettings, instructions: Instructions) -> None:
        self._instructions = instructions
        local: dict[str, Any] = {} if settings.address else {"include_dashboard": False, "object_store_memory": _MEMORY}
        try:
            ray.init(address=settings.address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"study.address={settings.address} cannot be reached: {error}") from error
        asked = {"CPU": float(settings.cpus), "GPU": float(settings.gpus)}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0.0) >= amount for name, amount in asked.items()) for node in nodes):
            ray.shutdown()
            raise InputError(f"no machine of the Ray cluster has study.cpus={settings.cpus} study.gpus={settings.gpus}")
        task = ray.remote(num_cpus=settings.cpus, num_gpus=settings.gpus, max_retries=-1)(_attend)
        self._task, self._cpus = task, settings.cpus
        self._workers: dict[int, ray.ObjectRef] = {}

    def start(self, places: Sequence[int]) -> None:
        """Submit a task for each of the places; Ray runs it again where its machine is lost."""
        for place in places:
            self._workers[place] = self._task.remote(self._instructions, place, self._cpus)

    def ending(self, place: int) -> Ending | None:
        """What the task at `place` returned; that it died, where Ray has given it up."""
        done, _ = ray.wait([self._workers[place]], timeout=0)
        if not done:
            return None
        try:
            return ray.get(done[0])
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError):
            return Ending(DIED)
        except ray.exceptions.RayError as error:
            return Ending(1, f"error: Ray: {' '.join(str(error).split())}")

    def stop(self) -> None:
        """Cancel all tasks, which stops their processes, and leave the cluster."""
        workers = list(self._workers.values())
        for worker in workers:
            ray.cancel(worker)
        if workers:
            ray.wait(workers, num_returns=len(workers), timeout=PATIENCE)
        ray.shutdown()


def _attend(instructions: Instructions, place: int, cpus: int) -> Ending:
    """The life of a worker, on the machine that Ray has chosen."""
    return instructions.begin(place, environment(cpus)).attend()
