"""Workers as processes of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ablations.scheduling.engines.process import PATIENCE, Ending, Instructions, WorkerProcess, environment
from ablations.scheduling.engines.settings import EngineSettings


class LocalEngine:
    """Each worker has its share of the cores and, where there are several GPUs, one of them."""

    def __init__(self, settings: EngineSettings, instructions: Instructions) -> None:
        self._workers, self._instructions = settings.workers, instructions
        self._processes: dict[int, WorkerProcess] = {}

    def start(self, places: Sequence[int]) -> None:
        """Begin a process for each of the places."""
        for place in places:
            self._processes[place] = self._instructions.begin(place, local_environment(place, self._workers))

    def ending(self, place: int) -> Ending | None:
        """The end of the process at `place`."""
        return self._processes[place].ending

    def stop(self) -> None:
        """Interrupt all processes, and wait for them together."""
        for process in self._processes.values():
            process.interrupt()
        limit = time.monotonic() + PATIENCE
        for process in self._processes.values():
            process.stop(limit - time.monotonic())


def local_environment(place: int, workers: int) -> dict[str, str]:
    """Of the worker at `place`, one of so many on this machine."""
    own = environment(max(1, len(os.sched_getaffinity(0)) // workers))
    import torch  # here, since refusing a study needs none of it

    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = visible[place % len(visible)]
    return own
