"""The report: complete, self-contained, the same again, and quick."""

from __future__ import annotations

import csv
import json
import re
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from ablations import report
from ablations.analysis.answer import scale_of
from ablations.reporting import tables
from tests.ablations import fake_study

VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """Checks that tags close, and collects text and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(path: Path) -> Page:
    return Page(report.build(path).read_text())


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    states = {("convection=on diffusion=off reaction=off", 1): "diverged", ("identity", 2): "running"}
    path = fake_study.pde_terms(
        tmp_path_factory.mktemp("r") / "terms",
        state=lambda block, arm, seed: states.get((arm, seed), "complete") if block == "constant" else "complete",
    )
    report.build(path)
    return path


def test_the_page_needs_nothing_from_outside(terms: Path, tmp_path: Path) -> None:
    for path in (terms, fake_study.mixers(tmp_path / "mixers")):
        found = page(path)
        assert not found.tags & {"script", "link", "iframe", "object"}
        inside = [address for address in found.addresses if not address.startswith("data:image/png;base64,")]
        assert {"trials.csv", "summary.json", "figures/", "trials/00000/"} < set(inside)
        assert all((path / unquote(address)).exists() for address in inside)
        assert "url(" not in (path / "report.html").read_text()
    assert len(found.addresses) - len(inside) == 5


def test_links_hold_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    path = fake_study.grid(tmp_path / "a", {"size": [3, 5]})
    report.build(path)
    path.rename(tmp_path / "b")
    addresses = Page((tmp_path / "b" / "report.html").read_text()).addresses
    assert len(addresses) > 8
    assert all((tmp_path / "b" / address).exists() for address in addresses)


def test_a_run_directory_that_is_an_address_is_a_folder(tmp_path: Path) -> None:
    fake = fake_study.FakeStudy(tmp_path / "s", **fake_study.plan_of_mixers(["a", "b"]))
    names = ["javascript:alert(1)", 'q"?x=1#y', "/tmp", "../.."]
    for number, name in enumerate(names):
        fake.trial("mixer=a", number, {"test/accuracy": 0.5}, levels={"mixer": "a"})
        fake.trial("mixer=b", number, {"test/accuracy": 0.6}, levels={"mixer": "b"})
        fake.rows[2 * number]["run_dir"] = name
        if number < 2:
            (tmp_path / "s" / name).mkdir()
    addresses = page(fake.write()).addresses
    assert "javascript%3Aalert%281%29/" in addresses
    assert "q%22%3Fx%3D1%23y/" in addresses
    assert not [address for address in addresses if address.startswith(("/", "..", "javascript:"))]


def test_the_page_tells_all_that_it_should(terms: Path) -> None:
    text = page(terms).text
    summary = json.loads((terms / "summary.json").read_text())
    said = [summary["question"], summary["answer"], *summary["notes"], "Block initial", "Block constant"]
    said += ["Effects on test accuracy", "Arms", "Interactions", "Learning curves", "Provenance", fake_study.REVISION]
    said += ["Uncertainty from the test images", "Power: how many seeds", "untuned", "1 diverged"]
    for line in said:
        assert line in text, line
    for block in summary["blocks"]:
        result = block["objectives"][0]
        digits = scale_of(result).digits
        for row in result["arms"]:
            assert f"{100 * row['mean']:.{digits}f} ± {100 * row['half']:.{digits}f}" in text


def test_tables_and_csvs_hold_what_is_shown(terms: Path) -> None:
    summary = json.loads((terms / "summary.json").read_text())
    result = summary["blocks"][0]["objectives"][0]
    header, body = tables.arm_table(result, 0.95)
    markdown = (terms / "table.md").read_text()
    assert f"| {' | '.join(header)} |" in markdown
    assert all(f"| {' | '.join(row)} |" in markdown for row in body)
    latex = (terms / "table.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert not re.search(r"(?<!\\)%", latex)
    with (terms / "arms.csv").open(newline="") as file:
        arms = list(csv.DictReader(file))
    assert len(arms) == 18
    wanted = {(row["arm"]): row["mean"] for row in result["arms"]}
    assert {row["arm"]: float(row["mean"]) for row in arms if row["block"] == "initial"} == wanted
    with (terms / "curves.csv").open(newline="") as file:
        # Nine arms, ten epochs, twice.
        assert len(list(csv.DictReader(file))) == 180
    for name in ("effects", "terms", "controls", "against_best", "images", "interactions", "power"):
        assert (terms / f"{name}.csv").stat().st_size


def test_figures_are_files_too(terms: Path) -> None:
    drawn = sorted((terms / "figures").glob("*.svg"))
    assert len(drawn) == 14
    for path in drawn:
        root = ET.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "NaN" not in path.read_text()
        assert "nan" not in re.sub(r">[^<]*<", "", path.read_text())


def test_building_again_changes_nothing(terms: Path) -> None:
    before = {path: path.read_bytes() for path in terms.glob("*.*")}
    report.build(terms)
    assert before == {path: path.read_bytes() for path in terms.glob("*.*")}


@pytest.mark.parametrize("kind", ["tune", "pareto"])
def test_searches_have_a_report(tmp_path: Path, kind: str) -> None:
    path = fake_study.search(tmp_path / kind, kind)
    text = page(path).text
    assert "What validation accuracy depends on" in text
    assert ("Trial by trial" in text) is (kind == "tune")
    assert ("Validation accuracy against MACs" in text) is (kind == "pareto")
    assert (path / "candidates.csv").is_file()
    assert not (path / "table.md").exists()


def test_fronts_speak_without_scripts_and_have_names_on_paper(tmp_path: Path) -> None:
    path = fake_study.costed(tmp_path / "s")
    found = page(path)
    assert "What test accuracy costs" in found.text
    assert "script" not in found.tags
    drawings = sorted((path / "figures").glob("front-*.svg"))
    assert [drawing.stem.partition("accuracy-")[2] for drawing in drawings] == sorted(
        cost.replace("/", "-") for cost in fake_study.COSTS
    )
    for drawing in drawings:
        root = ET.parse(drawing).getroot()
        points = [part for part in root.iter() if part.get("class") == "point"]
        assert len(points) == len(fake_study.ARMS)
        for point in points:
            assert point.get("tabindex") == "0"
            kinds = {str(part.get("class")): part.text for part in point}
            name = kinds.get("label") or kinds["label quiet"]
            assert name in fake_study.ARMS
            assert kinds["readout name"] == name
            assert str(point.get("aria-label")).startswith(f"{name}; test accuracy: ")
    rows = list(csv.DictReader((path / "fronts.csv").read_text().splitlines()))
    assert len(rows) == len(fake_study.ARMS) * len(fake_study.COSTS)


def test_a_study_without_a_score_has_a_report(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", state=lambda block, arm, seed: "waiting")
    assert "54 of 54 trials have not ended" in page(path).text
    search = fake_study.FakeStudy(
        tmp_path / "t", kind="tune", objectives=[{"metric": "val/accuracy"}], trials=3, space={"a": {"choices": [1, 2]}}
    )
    assert "No trial has ended" in page(search.write()).text


def test_words_of_users_stay_words(tmp_path: Path) -> None:
    path = fake_study.grid(tmp_path / "s", {"a": ["<i>", 'two & "three"']})
    plan = yaml.safe_load((path / "study.yaml").read_text())
    (path / "study.yaml").write_text(yaml.safe_dump({**plan, "question": "Is <b>a</b> & b worth it?"}))
    found = page(path)
    assert "Is <b>a</b> & b worth it?" in found.text
    assert not found.tags & {"b", "i"}
    assert 'two & "three"' in found.text
    for drawing in (path / "figures").iterdir():
        ET.parse(drawing)


def test_every_text_of_a_user_is_escaped(tmp_path: Path) -> None:
    evil = "\"'><img src=x onerror=alert(1)>&lt;{{ 'z' * 9 }}{% raw %}</title></style></svg><script>x</script>"
    path = fake_study.grid(tmp_path / "s", {"a": [evil, "b"], "c": [evil[:40], "d"]}, steps=3, images=30)
    plan = yaml.safe_load((path / "study.yaml").read_text())
    plan |= {"question": evil, "note": {evil: evil}}
    (path / "study.yaml").write_text(yaml.safe_dump(plan))
    table = (path / "trials.csv").read_text()
    (path / "trials.csv").write_text(table.replace("complete", "diverged", 1).replace(",mini,", ',"mini<b>",'))
    for number in range(4):
        evils = fake_study.provenance(0, backend=evil, hardware={"cpu": evil}, versions={evil: evil})
        (path / "trials" / f"{number:05d}" / "provenance.json").write_text(json.dumps(evils))
    found = page(path)
    assert not found.tags & {"script", "img", "b"}
    assert found.text.count(evil) > 10
    assert "z" * 9 not in found.text
    for drawing in (path / "figures").iterdir():
        assert not {node.tag.rpartition("}")[2] for node in ET.parse(drawing).iter()} & {"script", "img"}


def test_many_levels_are_drawn_in_rows(tmp_path: Path) -> None:
    levels = {"mixer": list("abcdefgh"), "conv": [0, 3]}
    path = fake_study.grid(tmp_path / "s", levels)
    text = page(path).text
    assert "mixer × conv" in text
    drawn = (path / "figures" / "interaction-main-test-accuracy-mixer-conv.svg").read_text()
    assert drawn.count("<circle") == 16


def test_the_command_says_where_the_report_is(terms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(terms)]) == 0
    assert capsys.readouterr().out == f"{terms / 'report.html'}\n"
    assert report.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_500_trials_are_reported_in_20_seconds(tmp_path: Path) -> None:
    levels = {name: [0, 1] for name in "abcdefg"}
    path = fake_study.grid(tmp_path / "s", levels, seeds=4, images=10_000, steps=50)
    # Of the processor, so that what else runs on the machine does not count.
    start = time.process_time()
    report.build(path)
    assert time.process_time() - start < 20
