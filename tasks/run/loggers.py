"""Loggers that a run can continue: what was logged stays, except after the step from which it is logged again."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from operators.runtime.torch_private import write_settings
from tasks.config.training import LoggerConfig
from tasks.system import atomic_files, environment, results

SCORES = ("val/accuracy", "val/loss", "test/accuracy", "test/loss")
"""Curves whose last values TensorBoard shows beside the settings, where a run has them."""


def create(config: LoggerConfig, folder: Path, step: int) -> Logger | None:
    """The logger of a run in `folder`, where it goes on at `step`; None for `none`.

    Raises:
        InputError: see `tasks.run.trackers.create`.
    """
    if config.name == "csv":
        return Table(folder, step)
    if config.name == "tensorboard":
        return TensorBoard(folder, name="", version="", purge_step=step)
    if config.name == "none":
        return None
    config.check_installed()
    from tasks.run import trackers

    return trackers.create(config, folder, continued=step > 0)


def log_image(logger: Logger, name: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
    """Log a picture, uint8 (H, W, 3), unless the logger takes none."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [pixels])
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, pixels, artifact_file=f"{name}_{step}.png")


def connect(logger: Logger, config: LoggerConfig, folder: Path) -> None:
    """Begin the run of a tracker; other loggers need nothing. Raises as `tasks.run.trackers.connect` does."""
    if isinstance(logger, WandbLogger | MLFlowLogger):
        from tasks.run import trackers

        trackers.connect(logger, config, folder)


def close(logger: Logger, *, ok: bool) -> None:
    """End what Lightning leaves open, so that another run of this process begins one of its own with the tracker."""
    if isinstance(logger, WandbLogger) and environment.rank() == 0:
        logger.experiment.finish(exit_code=0 if ok else 1)


class TensorBoard(TensorBoardLogger):
    """As Lightning's, but a full disk is the `OSError` it is, and is not told twice.

    Settings are shown beside the run's scores, without a curve or a file of their own.
    """

    _failed = False

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None, step: int | None = None) -> None:
        """Write the settings (a flat mapping)."""
        with self._watched():
            write_settings(self.experiment, params, dict.fromkeys(metrics or SCORES, 0.0))

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log.

        Raises:
            OSError: the disk is full; names the folder.
        """
        with self._watched():
            super().log_metrics(metrics, step)

    @override
    def save(self) -> None:
        """Write what is waiting; raises as `log_metrics` does."""
        with self._watched():
            super().save()

    @override
    def finalize(self, status: str) -> None:
        """Close, unless writing has failed: the run ends for that reason already."""
        if not self._failed:
            super().finalize(status)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._failed = True
        with atomic_files.named(self.log_dir):
            yield
        self._failed = False


class Table(CSVLogger):
    """`metrics.csv` in `folder`, which keeps its rows from before `step`. The settings are in the run's config.yaml."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder, name="", version="")
        self._step = step

    @override
    def log_hyperparams(self, params: Any | None = None) -> None:
        """Write nothing: `config.yaml` holds the settings."""

    @override
    def save(self) -> None:
        """Write what is waiting.

        Raises:
            OSError: as `TensorBoard`.
        """
        with atomic_files.named(self.log_dir):
            super().save()

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes the file."""
        rows = self._experiment
        if not isinstance(rows, _Rows):
            self._experiment = rows = _Rows(self.log_dir, self._step)
        return rows


class _Rows(ExperimentWriter):
    def __init__(self, folder: str, step: int) -> None:
        self._step = step
        super().__init__(folder)

    def _check_log_dir_exists(self) -> None:
        """Keep the rows; Lightning would remove the file."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        text = results.read(path) or ""
        try:
            whole = [row for row in csv.DictReader(io.StringIO(text, newline="")) if None not in row.values()]
            kept = [row for row in whole if int(row["step"]) < self._step]  # the last row may be cut off
        except (csv.Error, LookupError, TypeError, ValueError):
            results.say(f"warning: the damaged {path} is kept as {atomic_files.set_aside(path).name}")
            return
        self.metrics_keys = list(kept[0]) if kept else []
        table = io.StringIO()
        writer = csv.DictWriter(table, self.metrics_keys)
        writer.writeheader()
        writer.writerows(kept)
        if kept:
            atomic_files.write_text(path, table.getvalue())
        else:
            path.unlink()


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Leave out the traceback of a thread that finds the disk full: TensorBoard's tells the main thread as well."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is None or atomic_files.full(arguments.exc_value) is None:
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
