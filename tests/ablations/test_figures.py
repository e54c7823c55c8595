"""Figures keep points, intervals and names inside and apart, on axes with round ticks."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from ablations import report
from ablations.analysis.words import Scale, p_value
from ablations.reporting import figures, front_figure
from ablations.reporting.elements import NARROW, WIDE
from ablations.reporting.figures import Bar, Dot
from ablations.reporting.svg import Axis, tick_text
from tests.ablations import fake_study


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("count", [2, 9, 60])
def test_names_of_a_front_stay_inside_and_apart(width: int, count: int) -> None:
    draw = np.random.default_rng(count)
    points = [
        {
            "title": f"arm number {n}", "quality": 0.8 + 0.01 * n / count, "quality_low": None, "quality_high": None,
            "cost": 10 ** (3 * n / count), "cost_low": None, "cost_high": None, "n": 1, "beaten_by": None,
            "stands": "measured" if n % 3 == 0 else "open" if draw.random() < 0.5 else "beaten",
        }
        for n in range(count)
    ]  # fmt: skip
    scales = (Scale("train/step_ms", 1.0, 2), Scale("test/accuracy", 100.0, 1))
    root = ET.fromstring(front_figure.front(points, *scales, 1, width).render())
    labels = [part for part in root.iter("text") if str(part.get("class")).startswith("label")]
    assert len(labels) == (count if count <= front_figure.MOST_NAMES else count // 3)
    for label in labels:
        assert float(label.get("x") or -1) >= 0
        assert float(label.get("x") or 0) + 7 * len(label.text or "") <= width
    ticks = [part.text for part in root.iter("text") if part.get("class") == "soft" and part.text]
    assert {"1", "10", "100"} <= set(ticks) or count == 2


def test_axes_have_round_ticks() -> None:
    assert Axis(-0.3, 4.1, 0, 100).ticks(5) == [0, 1, 2, 3, 4]
    assert Axis(0, 10, 0, 200)(5) == 100
    assert Axis(1e-4, 1e-1, 0, 90, log=True)(1e-2) == pytest.approx(60)
    assert Axis(3, 3, 0, 10)(3) == 5
    ticks = Axis(0.5, 0.6, 0, 100).ticks(5)
    assert [tick_text(tick, ticks) for tick in ticks] == ["0.50", "0.52", "0.54", "0.56", "0.58", "0.60"]
    assert Axis(10, 10, 0, 100).ticks(8, whole=True) == [10]
    assert tick_text(10, [10]) == "10"
    assert Axis(1, 3, 0, 100).ticks(8, whole=True) == [1, 2, 3]
    assert Axis(0, 23, 0, 100).ticks(9, whole=True) == [0, 5, 10, 15, 20]
    for low, high in ((0, 1.0), (0, 1e-3), (2e-4, 3e-4), (1e4, 1.0001e4), (0, 2.5e6), (-7, 9e9), (123456, 123457.5)):
        for about in range(2, 12):
            ticks = Axis(low, high, 0, 100).ticks(about)
            assert len({tick_text(tick, ticks) for tick in ticks}) == len(ticks) > 0, (low, high, about)
    ticks = Axis(0, 0.011, 0, 100).ticks(5)
    assert [tick_text(tick, ticks) for tick in ticks] == ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]


def test_intervals_are_told_with_a_digit_or_two_of_their_own() -> None:
    scale = Scale.of("test/accuracy", [0.009, 0.012, None])
    assert (scale.signed(0.0312), scale.interval(0.022, 0.04), scale.points) == ("+3.1", "2.2 to 4.0", " points")
    assert scale.signed(-0.0001) == "0.0"
    loss = Scale.of("test/loss", [0.004])
    assert (loss.signed(-0.0263), loss.points, loss.value(None)) == ("\N{MINUS SIGN}0.0263", "", "\N{EM DASH}")
    assert [p_value(p) for p in (0.0004, 0.0213, 0.31, None)] == ["< 0.001", "0.021", "0.31", "\N{EM DASH}"]


def test_no_line_of_a_forest_crosses_its_letters_on_a_phone() -> None:
    bars = [Bar("mixer pde_ssm rather than attention", -0.5, -2.0, 1.0), Bar("b", 3.0, 2.0, 4.0)]
    root = ET.fromstring(figures.forest(bars, Scale.of("test/loss", [0.1]), "t", "x", NARROW).render())
    letters = {node.text: float(node.attrib["y"]) for node in root.iter("text")}
    assert bars[0].label in letters
    spans = [(float(node.attrib["y1"]), float(node.attrib["y2"])) for node in root.iter("line")]
    assert len(spans) > 4
    for text, baseline in letters.items():
        assert not [span for span in spans if span[0] < baseline + 3 and span[1] > baseline - 10], text


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_points_and_intervals_stay_inside_the_figure(width: int) -> None:
    bars = [Bar("a rather long name of an effect" * 3, -0.5, -2.0, 1.0), Bar("b", 3.0, None, None)]
    scale = Scale.of("test/loss", [0.1])
    drawn = [figures.forest(bars, scale, "t", "x", width)]
    dots = [Dot(10.0**n, 1.0 / (n + 1)) for n in range(5)]
    drawn.append(figures.scatter(dots, scale, scale, width))
    for canvas in drawn:
        root = ET.fromstring(canvas.render(alone=True))
        for node in root.iter():
            for name, most in (
                ("cx", width),
                ("x1", width),
                ("x2", width),
                ("cy", canvas.height),
                ("y1", canvas.height),
            ):
                assert 0 <= float(node.get(name, 0)) <= most


def test_curve_of_one_validation_is_a_point_at_a_whole_step(tmp_path: Path) -> None:
    path = fake_study.grid(tmp_path / "s", {"size": [3, 5]}, steps=1)
    report.build(path)
    texts = [node.text for node in ET.parse(path / "figures" / "curves-main.svg").iter() if node.tag.endswith("text")]
    circles = [node for node in ET.parse(path / "figures" / "curves-main.svg").iter() if node.tag.endswith("circle")]
    assert "10" in texts
    assert len(circles) == 2
