"""The pages of mixers: what they hold, what is refused, and that every mixer has one within its time."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import operators
from operators.show import __main__ as cli
from operators.show import equation, equation_figures, layers, page
from operators.show.figures import fields, spectra
from operators.show.layers import START, TRAINED, Layer
from operators.testing.checks import assert_close

LIMIT = 20.0
"""Seconds of the processor in which any mixer is to be drawn."""


def show(*argv: str, folder: Path) -> str:
    assert cli.main([*argv, "--out", str(folder)]) == 0
    return (folder / "index.html").read_text(encoding="utf-8")


def test_a_page_holds_its_pictures_and_says_what_they_are(tmp_path: Path) -> None:
    html = show("mamba", "--grid", "6x4", "--dim", "8", folder=tmp_path)
    files = sorted(path.name for path in tmp_path.glob("*.png"))
    assert files == [
        "map-mamba-influence.png", "map-mamba-step.png", "receptive-field.png", "response-mamba.png", "spectrum.png"
    ]  # fmt: skip
    assert html.count('src="data:image/png;base64,') == len(files)
    assert not re.search(r'(src|href)="(?!data:)', html), "nothing is loaded from elsewhere"
    assert operators.describe("mamba").title in html
    alternatives = re.findall(r'alt="([^"]*)"', html)
    assert all(alternatives)
    assert len(set(alternatives)) == len(files)


def test_titles_and_limits_of_figures_are_those_of_a_grid_that_is_not_square() -> None:
    layer = layers.fresh("conv", dim=4, grid=(6, 4))
    figure = fields([layer])
    (panel, _) = figure.axes
    assert (panel.get_xlim(), panel.get_ylim()) == ((-2.5, 1.5), (2.5, -3.5))
    assert panel.get_ylabel() == "rows from the output token"
    (panel, _) = spectra([layer]).axes
    assert panel.get_xlim() == pytest.approx((-0.625, 0.375))
    assert panel.get_ylim() == pytest.approx((2.5 / 6, -3.5 / 6))


def test_spots_are_drawn_at_the_scale_of_the_grid() -> None:
    from matplotlib.patches import Ellipse

    layer = layers.fresh("pde_ssm", dim=1, grid=(6, 4), params={"state": 2})
    made = equation.spots(layer.states[0])
    panel = equation_figures.spot_panels([layer]).axes[0]
    ellipses = {round(patch.width, 4): patch for patch in panel.patches if isinstance(patch, Ellipse)}
    for semi, shift in zip(made.axes[0].tolist(), made.shifts.tolist(), strict=True):
        ellipse = ellipses[round(2 * semi[0], 4)]
        assert ellipse.height == pytest.approx(2 * semi[1])
        assert ellipse.center == pytest.approx((shift[1], shift[0]))  # across, then down
    arrows = torch.tensor(sorted(text.xy for text in panel.texts))
    assert_close(arrows, made.shifts.flip(1)[made.shifts[:, 1].argsort()].float(), 1e-5, "ends of arrows")


def test_a_film_moves_and_stays_at_its_end() -> None:
    layer = layers.fresh("pde_ssm", dim=1, grid=(6, 4), params={"state": 2})
    with Image.open(io.BytesIO(equation_figures.animation(layer))) as film:
        frames = []
        for number in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(number)
            frames.append(film.convert("RGB").tobytes())
        assert len(set(frames)) == equation_figures.FRAMES
        assert film.info["duration"] == equation_figures.STAY


def test_rows_are_times_and_columns_layers() -> None:
    first, other = (layers.fresh(name, dim=4, grid=(5, 4)).states[0] for name in ("conv", "pool"))
    made = [
        Layer(f"layer {number}: {state.mixer.card.name}", [
            layers.State(name, state.mixer, state.x) for name in (START, TRAINED)
        ])
        for number, state in enumerate((first, other))
    ]  # fmt: skip
    *panels, _ = fields(made).axes
    assert [panel.get_title().split("\n")[0] for panel in panels] == 2 * ["layer 0: conv", "layer 1: pool"]
    assert [panel.get_ylabel().split("\n")[0] for panel in panels[::2]] == [START, TRAINED]


def test_many_layers_are_thinned_out_over_depth() -> None:
    layer = layers.fresh("identity", dim=2, grid=(3, 3))
    made = [Layer(str(number), layer.states) for number in range(12)]
    assert [each.title for each in page.some(made)] == ["0", "2", "4", "7", "9", "11"]
    assert page.some(made[:3]) == made[:3]


def test_what_cannot_be_drawn_is_said() -> None:
    waves, limit, blind = (
        layers.fresh(name, dim=8, grid=(5, 4), params=params)
        for name, params in (("pde_ssm", {"order": 2}), ("pde_ssm", {"forcing": "steady"}), ("pool", {}))
    )
    (section,) = page.equations([waves])
    assert "second order in time" in section.texts[0]
    assert not section.pictures
    (section,) = page.evolution(limit)
    assert "steady forcing" in section.texts[0]
    assert not list(page.equations([blind]))
    assert not list(page.evolution(blind))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pde_sm"], "did you mean 'pde_ssm'?"),
        (["attention", "--grid", "24"], "HEIGHTxWIDTH"),
        (["attention", "--dim", "0"], "dim=0 must be an integer >= 1"),
        (["attention", "--shell", "comon"], "did you mean 'common'?"),
        (["attention", "--set", "head=2"], "did you mean 'heads'?"),
        (["attention", "--set", "heads=2,4"], "set: heads has 2 values"),
        (["attention", "--set", "heads"], "must read"),
        (["attention", "--gird", "4x4"], "did you mean '--grid'?"),
        (["attention", "--seed", "-1"], "seed=-1 must be an integer >= 0"),
        ([], "NAME|CKPT"),
        (["runs/last.ckpt"], "ckpt=runs/last.ckpt does not exist"),
        (["nothing.ckpt", "--grid", "4x4"], "unrecognized arguments"),
        (["--seed", "1", "nothing.ckpt"], "ckpt=nothing.ckpt does not exist"),
    ],
)
def test_refusals_are_one_line(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["identity", "--grid", "3x3", "--dim", "2", "--out", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be used: Not a directory" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", operators.names())
def test_every_mixer_is_drawn_in_time(name: str, tmp_path: Path) -> None:
    """At the command's defaults, without a warning, which would be an error here."""
    torch.set_num_threads(1)
    began = time.process_time()
    html = show(name, folder=tmp_path)
    assert time.process_time() - began < LIMIT
    assert {"response-" + name + ".png", "receptive-field.png", "spectrum.png"} <= {p.name for p in tmp_path.iterdir()}
    inside = operators.create(name, 8, grid=cli.GRID, cond_dim=4, shell=operators.BARE)
    drawn = [*page.maps.drawable(inside.inspect(torch.randn(1, *cli.GRID, 8), torch.zeros(1, 4)), cli.GRID)]
    assert html.count("<h2>Inside ") == bool(drawn)
