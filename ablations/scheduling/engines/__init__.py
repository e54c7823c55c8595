"""Where the workers of a study run: each engine places them, notices that one died, and stops them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ablations.scheduling.engines.process import Ending, Instructions
from ablations.scheduling.engines.settings import EngineSettings


class Engine(Protocol):
    """Workers by the numbers of their places."""

    def start(self, places: Sequence[int]) -> None:
        """Have a worker at each of the `places`, now or as soon as there is room."""

    def ending(self, place: int) -> Ending | None:
        """How the worker at `place` has ended; None as long as it works, or waits for room."""

    def stop(self) -> None:
        """Ask all workers to stop, and wait until they have."""


def create(settings: EngineSettings, instructions: Instructions) -> Engine:
    """The engine that `study.engine` names.

    Raises:
        InputError: its package is not installed, or it cannot be reached.
    """
    if settings.engine == "ray":
        from ablations.scheduling.engines.on_ray import RayEngine

        return RayEngine(settings, instructions)
    if settings.engine == "slurm":
        from ablations.scheduling.engines.on_slurm import SlurmEngine

        return SlurmEngine(settings, instructions)
    from ablations.scheduling.engines.local import LocalEngine

    return LocalEngine(settings, instructions)
