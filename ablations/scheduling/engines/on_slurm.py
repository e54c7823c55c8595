"""Workers as jobs of SLURM, submitted by submitit; a job whose time is over is queued again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep

import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.helpers import DelayedSubmission

from ablations.scheduling.engines.process import DIED, PATIENCE, Ending, Instructions, WorkerProcess, environment
from ablations.scheduling.engines.settings import EngineSettings
from operators.errors import InputError

_TIMEOUTS = 1000
"""How often the time of a job may be over before it is no longer queued again."""
_LOOK = 2.0
"""Seconds between looks at a job, which ask the file system."""


class SlurmEngine:
    """An array of jobs, one for each worker."""

    def __init__(self, settings: EngineSettings, instructions: Instructions) -> None:
        options = dict(settings.slurm)
        cluster = options.pop("cluster", "slurm")
        if cluster == "slurm" and None in map(shutil.which, ("sbatch", "srun")):
            raise InputError(
                "study.engine=slurm needs sbatch and srun: start the study where jobs are submitted "
                "(study.slurm={cluster: local, ...} runs them on this machine)"
            )
        self._instructions, self._cpus = instructions, settings.cpus
        timeouts = {f"{cluster}_max_num_timeout": _TIMEOUTS}
        folder = instructions.logs / "jobs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what jobs are told may hold the storage's password
        self._executor = submitit.AutoExecutor(folder, cluster=cluster, **timeouts)
        self._executor.update_parameters(
            name="study",
            timeout_min=int(options.pop("time")),
            cpus_per_task=settings.cpus,
            gpus_per_node=int(settings.gpus) or None,
            slurm_additional_parameters=options,
        )
        self._jobs: dict[int, submitit.Job[Ending]] = {}
        self._looked: dict[int, float] = {}

    def start(self, places: Sequence[int]) -> None:
        """Submit an array of jobs, one for each of the places."""
        workers = [_Worker(self._instructions, place, self._cpus) for place in places]
        try:
            self._jobs.update(zip(places, self._executor.submit_array(workers), strict=True))
        except FailedJobError as error:
            raise InputError(f"sbatch refuses study.slurm: {' '.join(str(error).split())}") from error

    def ending(self, place: int) -> Ending | None:
        """What the job at `place` returned; that it died, where it left nothing."""
        job = self._jobs[place]
        if monotonic() - self._looked.get(place, 0.0) < _LOOK:
            return None
        self._looked[place] = monotonic()
        if not job.done():
            return None
        try:
            return job.result()
        except FailedJobError as error:
            return Ending(1, f"error: job {job.job_id}: {' '.join(str(error).split())}")
        except UncompletedJobError:
            return Ending(DIED)

    def stop(self) -> None:
        """Cancel all jobs, and wait until their processes have stopped."""
        for job in self._jobs.values():
            if not job.done():
                job.cancel(check=False)
        limit = monotonic() + PATIENCE
        while monotonic() < limit and not all(job.done(force_check=True) for job in self._jobs.values()):
            sleep(_LOOK)


@dataclass
class _Worker:
    """A worker as a job, on the machine that SLURM has chosen."""

    instructions: Instructions
    place: int
    cpus: int
    process: WorkerProcess | None = None

    def __call__(self) -> Ending:
        self.process = self.instructions.begin(self.place, environment(self.cpus))
        return self.process.attend()

    def checkpoint(self) -> DelayedSubmission:
        """Stop before the job's time is over, or its machine is taken away; what is queued begins anew."""
        if self.process is not None:
            self.process.interrupt()
            self.process.stop(PATIENCE)
        return DelayedSubmission(_Worker(self.instructions, self.place, self.cpus))
