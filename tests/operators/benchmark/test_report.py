import re
import sys
from dataclasses import replace

import pytest
from PIL import Image

from operators.benchmark import plots, report
from operators.benchmark.workload import BOTH, FORWARD
from tests.operators.benchmark.cases import ROW


def rows(arm, seconds, **change):
    """Both works of an arm at three sizes, with time ∝ tokens."""
    return [
        replace(
            ROW, arm=arm, work=work, height=side, width=side, run=f"run{side}", **change,
            **dict.fromkeys(("seconds", "seconds_low", "seconds_high"), seconds * side**2 * factor),
        )
        for side in (8, 16, 32)
        for work, factor in ((FORWARD, 1), (BOTH, 3))
    ]  # fmt: skip


def cells(markdown, heads):
    """Lines of the table whose first heads are these."""
    start = markdown.index("| " + " | ".join(heads))
    block = markdown[start:].split("\n\n")[0].strip().splitlines()
    parsed = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block]
    assert all(len(line) == len(parsed[0]) for line in parsed)
    return [dict(zip(parsed[0], line, strict=True)) for line in parsed[2:]]


def test_numbers_come_back_from_the_markdown_to_three_digits():
    measured = rows("pom", 1.2345e-4, ratio=0.123456, share=0.034567, peak_bytes=5 << 20)
    text = report.markdown(measured, failed={}, skipped={})
    lines = cells(text, ["grid", "arm"])
    assert [line["grid"] for line in lines] == ["8x8", "16x16", "32x32"]
    for line, row in zip(lines, measured[::2], strict=True):
        assert float(line["forward ms"].split()[0]) == pytest.approx(1e3 * row.seconds, rel=5e-3)
        assert float(line["forward+backward ms"].split()[0]) == pytest.approx(3e3 * row.seconds, rel=5e-3)
        assert float(line["forward MiB"]) == 5
        assert float(line["forward / attention"]) == pytest.approx(0.123456, rel=5e-3)
        assert float(line["forward roofline"]) == pytest.approx(0.034567, rel=5e-2)
        assert float(line["error"]) == 1e-7
    for line in cells(text, ["arm", "time, forward"]):
        assert (line["arm"], line["sizes"]) == ("pom", "3")
        assert line["time, forward"] == line["time, forward+backward"] == "1.00 ± 0.00"
        assert line["time, forward+backward, two largest"] == "1.00"
        assert line["memory, forward+backward"] == "0.00 ± 0.00"


def test_one_work_alone_leaves_gaps():
    (line,) = cells(report.markdown([ROW], failed={}, skipped={}), ["grid", "arm"])
    assert line["forward+backward ms"] == "–"


def test_settings_are_never_mixed():
    measured = [*rows("pom", 1e-4), *rows("pom", 1e-2, dim=64)]
    found = report.sections(measured)
    assert [len(members) for members in found] == [6, 6]
    assert len({report.section_of(row) for members in found for row in members}) == 2
    assert all(power.exponent == pytest.approx(1) for members in found for power in report.exponents(members).values())


def test_failures_skips_and_what_is_left_are_listed():
    failed, skipped = {("pom", "output: off"): ["cpu float32 8x8"]}, {("rival x", "not there"): list("abcd")}
    text = report.markdown([], failed=failed, skipped=skipped, left=7)
    assert "## Failed: not timed\n\n* pom: output: off (cpu float32 8x8)" in text
    assert "## Skipped\n\n* rival x: not there (a, b and 2 more)" in text
    assert "7 rows are still to be measured" in text


def test_mixers_beside_their_bare_operations_stand_in_one_table():
    pairs = []
    for name, ratio in (("pom", 2.0), ("gla", 3.0)):
        facts = {"reference": f"bare {name}", "ratio": ratio, "ratio_low": ratio - 0.5, "ratio_high": ratio + 0.5}
        pairs += [*rows(name, 1e-4, **facts), *rows(f"bare {name}", 5e-5, kind="bare", **facts | {"ratio": 1.0})]
    (members,) = report.sections(pairs)
    text = report.markdown(members, failed={}, skipped={})
    compared = text.partition("Over bare operations")[2].partition("\n\n")[2]
    lines = dict(line.strip("| ").split(" | ", 1) for line in compared.splitlines()[2:])
    assert list(lines) == ["pom", "gla"]
    assert lines["gla"].startswith("3.00 (2.50–3.50)")
    assert "forward+backward / bare operations" in text


def test_exponents_of_the_largest_sizes_and_of_memory():
    grown = [row for row in rows("pom", 1e-4) if row.work == FORWARD]
    grown = [replace(row, peak_bytes=row.tokens**2) for row in grown]
    assert report.exponents(grown, "peak_bytes")["pom", FORWARD].exponent == pytest.approx(2)
    slow = [replace(row, seconds=row.seconds * (1 + (row is grown[-1]))) for row in grown]
    doubling = report.exponents(slow, sizes=2)["pom", FORWARD]
    assert doubling.points == 2
    assert doubling.exponent > report.exponents(slow)["pom", FORWARD].exponent > 1


def test_bars_in_labels_do_not_break_a_table():
    assert report.table(["a"], [["x|y"]], left=1).splitlines()[-1] == "| x\\|y |"


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ({"a": 0.5, "b": 0.2}, {"b": 0.2, "a": 0.5}),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, {"a": 0.5, "b": 0.6, "c": 0.7}),
        ({"a": 1.0, "b": 0.99}, {"b": 0.9, "a": 1.0}),
        ({}, {}),
    ],
)
def test_labels_are_kept_apart(heights, expected):
    assert plots.spread(heights, 0.1) == pytest.approx(expected)


def test_without_matplotlib_there_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "operator-zoo[benchmark]" in plots.unavailable()


@pytest.mark.slow
def test_a_figure_of_many_mixers_has_room_for_every_name_and_leaves_bare_operations_out(tmp_path):
    names = [f"mixer_{number}" for number in range(60)]
    measured = [row for name in names for row in rows(name, 1e-4)]
    for file, given in (("without.png", measured), ("with.png", [*measured, *rows("bare pom", 1e-4, kind="bare")])):
        plots.draw(given, tmp_path / file)
    assert (tmp_path / "with.png").read_bytes() == (tmp_path / "without.png").read_bytes()
    with Image.open(tmp_path / "with.png") as picture:
        assert picture.height > 60 * 2 * 15
