"""Files of The Well, made here in its layout."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from operators.errors import InputError
from tasks.fields import well
from tasks.fields.box import Box
from tasks.fields.equations import get
from tasks.fields.solver import trajectory
from tasks.fields.sources import Recorded, Solved
from tasks.fields.well import WellSplit
from tasks.probes.draws import draw
from tasks.probes.forecast.field_forecast import FieldForecast

GRID, FRAMES = 16, 5


def write(path: Path, fields: dict[str, dict[str, np.ndarray]], **attributes: dict[str, object]) -> None:
    """A file with these datasets in its groups; `attributes` of one by its name."""
    h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'operator-zoo[well]'")
    first = next(iter(next(iter(fields.values())).values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"], file.attrs["grid_type"] = "shallow_water", "cartesian"
        file.attrs["n_spatial_dims"], file.attrs["n_trajectories"] = 2, len(first)
        file.attrs["simulation_parameters"] = ["gravity"]
        file.attrs["gravity"] = 1.0
        space = file.create_group("dimensions")
        space.attrs["spatial_dims"] = ["x", "y"]
        lengths = {"time": first.shape[1], "x": first.shape[2], "y": first.shape[3]}
        for name, length in lengths.items():
            space.create_dataset(name, data=np.linspace(0, 1, length, dtype=np.float32)).attrs["sample_varying"] = False
        for group in well.GROUPS:
            file.create_group(group).attrs["field_names"] = list(fields.get(group, {}))
            for name, values in fields.get(group, {}).items():
                own = {"sample_varying": True, "time_varying": True, "dim_varying": [True, True]}
                file[group].create_dataset(name, data=values).attrs.update({**own, **attributes.get(name, {})})


def water(split: str, index: int) -> np.ndarray:
    return trajectory(get("shallow_water"), Box(GRID), FRAMES, seed=0, split=split, index=index)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Our shallow water, three trajectories of each split in two files."""
    for split, folder in well.FOLDERS.items():
        states = np.stack([water(split, index) for index in range(3)])
        for name, part in (("a.hdf5", states[:2]), ("b.hdf5", states[2:])):
            vector = np.moveaxis(part[:, :, 1:], 2, -1)
            path = tmp_path / "data" / folder / name
            write(path, {"t0_fields": {"height": part[:, :, 0]}, "t1_fields": {"velocity": vector}})
    return tmp_path


def test_files_give_the_samples_that_the_solver_gives(root: Path) -> None:
    split = WellSplit(root, "val")
    assert len(split) == 3
    assert (split.fields, split.constants) == (("height", "velocity_x", "velocity_y"), ())
    assert (split.grid, split.frames) == ((GRID, GRID), FRAMES)
    for index in range(3):
        np.testing.assert_array_equal(split.trajectory(index)[0], water("val", index))
    dials = {"grid": GRID, "frames": FRAMES, "trajectories": 3, "history": 2}
    solved, read = FieldForecast(equation="shallow_water", **dials), FieldForecast(data=str(root), **dials)
    for name in ("train", "test"):
        ours, theirs = (draw(probe, name, range(4)) for probe in (solved, read))  # type: ignore[arg-type]
        np.testing.assert_array_equal(ours.input, theirs.input)
        np.testing.assert_array_equal(ours.target, theirs.target)
        np.testing.assert_allclose(read.solve(theirs), solved.solve(ours), atol=1e-5)


def test_every_second_time_can_be_taken(root: Path) -> None:
    states = Recorded(root, GRID, 3, stride=2).get("test", 1).states
    np.testing.assert_array_equal(states, water("test", 1)[::2])
    np.testing.assert_allclose(states, Solved("shallow_water", Box(GRID), 3, 2.0).get("test", 1).states, atol=1e-5)


def test_tensors_are_split_and_constants_are_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensor = rng.standard_normal((2, 3, 4, 6, 2, 2)).astype(np.float32)
    depth, ramp = rng.standard_normal((4, 6)).astype(np.float32), np.arange(6, dtype=np.float32)
    still = {"sample_varying": False, "time_varying": False}
    write(
        tmp_path / "data/train/only.h5",
        {"t2_fields": {"D": tensor}, "t0_fields": {"depth": depth, "ramp": ramp}},
        depth=still,
        ramp={**still, "dim_varying": [False, True]},
    )
    split = WellSplit(tmp_path)
    assert split.fields == ("D_xx", "D_xy", "D_yx", "D_yy")
    assert split.constants == ("depth", "ramp")
    states, constants = split.trajectory(1, frames=2)
    np.testing.assert_array_equal(states, np.moveaxis(tensor[1, :2].reshape(2, 4, 6, 4), -1, 1))
    np.testing.assert_array_equal(constants, np.stack([depth, np.tile(ramp, (4, 1))]))


def test_refusals(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(InputError, match=r"has no files \*\.hdf5"):
        len(WellSplit(tmp_path_factory.mktemp("empty")))
    with pytest.raises(InputError, match=r"probe\.grid=32 must be the grid of the files, 16 × 16"):
        _ = FieldForecast(data=str(root)).channels
    with pytest.raises(InputError, match=r"probe\.frames=20 must be at most 5"):
        _ = FieldForecast(data=str(root), grid=GRID).channels
    (root / "data/test/a.hdf5").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.hdf5 is not a file of The Well"):
        len(WellSplit(root, "test"))
    with pytest.raises(IndexError):
        WellSplit(root).trajectory(3)


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train/a.hdf5").touch()

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"^files of The Well need h5py.*pip install 'operator-zoo\[well\]'"):
        len(WellSplit(tmp_path))
