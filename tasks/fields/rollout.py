"""Forecasts of many steps, each from the one before: their errors, and a picture of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.fields.vrmse import vrmse
from tasks.system.atomic_files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]

COLUMNS = 5
"""Steps that the picture shows, the first and the last among them."""
INCHES, CURVES = 1.9, 2.5
"""Side of a field in the picture, and height of the curves below."""


@dataclass(frozen=True)
class Rollout:
    """Forecasts of several trajectories, in the fields' own units.

    Attributes:
        true: states (B, steps, C, H, W).
        predicted: forecasts, of that shape.
        last: the states (B, C, H, W) that the first forecasts follow.
        fields: names of the fields.
        units: of each; may be empty.
        title: what is forecast.
    """

    true: Array
    predicted: Array
    last: Array
    fields: Sequence[str]
    units: Sequence[str]
    title: str

    def scores(self) -> dict[str, float]:
        """The mean over all steps of the VRMSE of the forecasts, and of the last known state, which stays as it is."""
        forecast, still = self.errors()
        return {"rollout_vrmse": float(forecast.mean()), "rollout_persistence_vrmse": float(still.mean())}

    def errors(self) -> tuple[Array, Array]:
        """VRMSE (steps,) of the forecasts and of the last known state, each a mean over trajectories."""
        still = np.broadcast_to(self.last[:, None], self.true.shape)
        return vrmse(self.predicted, self.true).mean(axis=0), vrmse(still, self.true).mean(axis=0)

    def write(self, folder: Path) -> None:
        """Write `rollout.csv`: the errors at each step."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["step", "vrmse", "persistence_vrmse"])
        rows.writerows([step, *pair] for step, pair in enumerate(zip(*self.errors(), strict=True), start=1))
        write_text(folder / "rollout.csv", text.getvalue())

    def draw(self, path: Path, index: int = 0) -> None:
        """Draw truth, forecast and error of one trajectory over time, and the errors of all; needs matplotlib.

        Args:
            path: of the PNG.
            index: of the trajectory.
        """
        from matplotlib.figure import Figure

        steps, count = self.true.shape[1], len(self.fields)
        shown = np.unique(np.linspace(0, steps - 1, min(COLUMNS, steps)).round().astype(int))
        size = (INCHES * len(shown) + 2.2, INCHES * 3 * count + CURVES)
        figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
        figure.suptitle(self.title)
        parts: Any = figure.subfigures(2, 1, height_ratios=[size[1] - CURVES, CURVES])
        fields, curves = parts
        grid = fields.subplots(3 * count, len(shown), squeeze=False)
        for field in range(count):
            self._draw_field(fields, grid[3 * field : 3 * field + 3], index, field, shown)
        self._draw_curves(curves.subplots())
        figure.savefig(path)

    def _draw_field(self, figure: Any, rows: Any, index: int, field: int, shown: Array) -> None:
        true, predicted = self.true[index, shown, field], self.predicted[index, shown, field]
        error = predicted - true
        span = {"vmin": true.min(), "vmax": true.max(), "cmap": "viridis"}
        bound = np.nanmax(np.abs(np.where(np.isfinite(error), error, np.nan)), initial=1e-12)
        kinds = [("true", true, span), ("forecast", predicted, span)]
        kinds.append(("error", error, {"vmin": -bound, "vmax": bound, "cmap": "RdBu_r"}))
        for axes, (kind, values, look) in zip(rows, kinds, strict=True):
            for column, (place, image) in enumerate(zip(axes, values, strict=True)):
                picture = place.imshow(image, interpolation="nearest", **look)
                place.set_xticks([])
                place.set_yticks([])
                if field == 0 and kind == "true":
                    place.set_title(f"step {shown[column] + 1}", fontsize=9)
            axes[0].set_ylabel(f"{self.fields[field]},\n{kind}", fontsize=8)
            bar = figure.colorbar(picture, ax=list(axes), aspect=12, pad=0.01)
            bar.set_label(self.units[field], fontsize=8)
            bar.ax.tick_params(labelsize=7)

    def _draw_curves(self, axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        forecast, still = self.errors()
        steps = np.arange(1, len(forecast) + 1)
        axes.plot(steps, forecast, "o-", markersize=3, color="#0b62a8", label="forecast")
        axes.plot(steps, still, "s--", markersize=3, color="#c24a00", label="last known state")
        axes.axhline(1.0, color="#5a5f66", linewidth=1, linestyle=":", label="mean of the truth")
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(f"VRMSE, mean of {len(self.true)}")
        axes.grid(True, which="major", color="#d9dee3", linewidth=0.8)
        axes.legend(fontsize=8)
