"""Studies that must not be carried out: where their names lead, what they would take, what they would tell."""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations import __main__ as cli
from ablations import compare, nodes, report
from ablations import plan as plans
from ablations.analysis import runs
from ablations.scheduling import runner, storage, urls
from ablations.scheduling.storage import open_storage
from ablations.trials import expand, sections
from operators import InputError
from tests.ablations import fake_study
from tests.ablations.conftest import NODE, empty_ledger
from tests.ablations.test_compare import write_run

NAMES = [
    "../../../../evil", "/tmp/evil", "a/b", "..", ".", "", " ", "a ", ".hidden", "-rf", "nul", "COM1.txt", "a\nb",
    "a\x7fb", "a\\b", "x" * 101, "ü" * 60, 5, None, ["a"], {"a": 1},
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where a study is refused before it is checked arm by arm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def check(*_: Any) -> None:
        raise InputError("nothing was wrong")

    monkeypatch.setattr(runner, "check", check)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that is said of them."""
    assert cli.main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert len(said.err) < 1100
    return said.err


def write(node: Any, path: str = "my.yaml") -> str:
    Path(path).write_text(node if isinstance(node, str) else yaml.safe_dump(node, sort_keys=False))
    return f"study={path}"


@pytest.mark.parametrize("name", NAMES)
def test_name_that_is_no_folder_is_refused(here: Path, capsys: pytest.CaptureFixture[str], name: Any) -> None:
    assert "study name=" in refusal(capsys, write({**NODE, "name": name}))
    if isinstance(name, str) and "\0" not in name:
        write(NODE)
        assert "study name=" in refusal(capsys, "study=my.yaml", f"study.name={name}")
    assert [path.name for path in here.iterdir()] == ["my.yaml"]


def test_plain_names_are_taken() -> None:
    for name in ("pde_terms", "a study, v1.2", "größe", "x" * 100, "console", "a..b"):
        assert nodes.check_study_name(name) == name


@pytest.mark.parametrize("place", ["/proc/study", "/proc/self/study", "my.yaml", "my.yaml/inside", "loop", "x" * 300])
def test_folder_that_cannot_be_written_to_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (here / "loop").symlink_to("loop")
    line = refusal(capsys, write(NODE), f"study.dir={place}")
    assert "study.dir=" in line
    assert "nothing was wrong" not in line
    assert sorted(path.name for path in here.iterdir()) == ["loop", "my.yaml"]


def test_refused_study_leaves_no_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing was wrong" in refusal(capsys, write(NODE), "study.dir=a/b/c")
    assert [path.name for path in here.iterdir()] == ["my.yaml"]


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(lines)


BOMBS: dict[str, tuple[Callable[[], str], str]] = {
    "aliases": (bomb, "at most 20,000 are read"),
    "itself": (lambda: "a: &a [*a]", "one that holds itself"),
    "interpolations": (lambda: "\n".join(f"a{n}: '${{a{n + 1}}}${{a{n + 1}}}'" for n in range(60)), "oc.env"),
    "levels": (lambda: "a: " + "[" * 5000 + "]" * 5000, "more than 50 levels"),
    "some levels": (lambda: "a: " + "[" * 40 + "]" * 40, "at most 20"),
    "size": (lambda: "a: " + "x" * 2**21, "1,048,576 bytes"),
    "text": (lambda: "a: " + "x" * 20_000, "at most 10,000"),
    "integer": (lambda: "seeds: " + "9" * 5000, "cannot be read"),
    "hexadecimal": (lambda: "seeds: 0x" + "f" * 5000, "2^53"),
    "not finite": (lambda: "a: .inf", "must be finite"),
    "bytes": (lambda: "a: !!binary aGVsbG8=", "must be a text"),
    "object": (lambda: "a: !!python/object/apply:os.system [ls]", "cannot be read"),
    "date": (lambda: "a: 2020-01-01", "study has no 'a'"),
    "empty": (lambda: "", "is empty"),
    "list": (lambda: "[1, 2]", "holds no plan"),
    "text alone": (lambda: "hello", "study has no 'hello'"),
    "keys twice": (lambda: "a: 1\na: 2", "cannot be read"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_file_is_refused_before_it_takes_memory(here: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    make, expected = BOMBS[kind]
    assert expected in refusal(capsys, write(make()))


def test_binary_file_and_folder_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my.yaml").write_bytes(bytes(range(256)) * 10)
    assert "cannot be read" in refusal(capsys, "study=my.yaml")
    (here / "folder.yaml").mkdir()
    assert "cannot be read" in refusal(capsys, "study=folder.yaml")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """No more than 1 GiB beyond what the process has."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


WIDE = {"factors": {f"f{n}": {"key": f"model.x{n}", "levels": list(range(100))} for n in range(6)}}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("change", "given", "expected"),
    [
        ({}, ["study.seeds=1e9"], "study.seeds='1e9' must be an integer >= 1 and <= 100000"),
        ({}, ["study.seeds=1000000000"], "<= 100000"),
        ({}, ["study.seeds=３"], "study.seeds='３' must be an integer"),
        ({"blocks": [{"name": "..", **WIDE}]}, [], "but not of dots alone"),
        ({}, ["study.seeds=" + "9" * 5000], "<= 100000"),
        ({}, ["study.seeds=90000"], "450,000 trials"),
        ({}, ["study.workers=1000000"], "study.workers=1000000 must be an integer >= 1 and <= "),
        ({"seeds": 10**12}, [], "seeds=1000000000000"),
        ({"blocks": [{"name": "b", **WIDE}]}, [], "trials (1,000,000,000,000 arms"),
        ({"blocks": [{"name": "b", **WIDE, "design": "fraction", "budget": 10**9}]}, [], "arms"),
        ({"blocks": [{"name": "b", "factors": {"f": {"key": "x", "levels": list(range(5000))}}}]}, [], "5,000 levels"),
        ({"tuning": {"key": "optimizer.lr", "levels": [1e-3, 2e-3], "extend": 10**9}}, [], "extend of tuning"),
        ({"tuning": {"key": "optimizer.lr", "levels": [1e-3] * 5000}}, [], "5,000 levels"),
    ],
)
def test_study_that_is_too_large_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], given: list[str], expected: str
) -> None:
    assert expected in refusal(capsys, write({**NODE, **change}), *given)


def test_search_that_is_too_large_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"optimizer.lr": {"low": 1e-4, "high": 1e-2}}
    node = {"question": "?", "kind": "tune", "objectives": [{"metric": "val/loss"}], "trials": 10**12, "space": space}
    assert "trials=1000000000000" in refusal(capsys, write(node))
    assert "study.trials" in refusal(capsys, write(node | {"trials": 3}), "study.trials=1000000000000")
    node |= {"trials": 3, "space": {"model.dim": {"choices": list(range(5000))}}}
    assert "5,000 choices" in refusal(capsys, write(node))


SECRET = "s3cr+t/&x"
URLS = [
    "postgresql+psycopg://me:{}@127.0.0.1:9/db",
    "postgresql+psycopg://me@127.0.0.1:9/db?password={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?sslmode=disable&passwd={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?sslpassword={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?pass%77ord={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?password={0}&password={0}",
    "postgresql+psycopg://me:{}@127.0.0.1:port/db",
    "postgresql+psycopg://me:x@{}@127.0.0.1:9/db",
    "postgresql:/me:{}@127.0.0.1/db",
    "nothing://me:{}@127.0.0.1/db",
    "mssql+pyodbc:///?odbc_connect=SERVER%3Dx%3BPWD%3D{}",
]


@pytest.mark.parametrize("full", ["0", "1"])
@pytest.mark.parametrize("url", URLS)
def test_no_password_is_told(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, full: str
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    given = url.format("s3cr%2Bt%2F%26x")
    assert cli.main([write(NODE), f"study.storage={given}"]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()
    for spelling in (SECRET, "s3cr", "t%2F"):
        assert spelling not in said
        assert spelling not in urls.shown(given)


@pytest.mark.parametrize("argument", ["--storage={}", "storage={}", "study.storge={}", "+x={}", "{}"])
def test_no_password_in_the_wrong_place_is_told(here: Path, capsys: pytest.CaptureFixture[str], argument: str) -> None:
    for url in ("postgresql://me:s3cret@127.0.0.1/db", "postgresql://127.0.0.1/db?user=me&password=s3cret"):
        assert "s3cret" not in refusal(capsys, write(NODE), argument.format(url))


def test_failures_of_the_storage_hold_no_password() -> None:
    url = "postgresql://me:p%40ss@host/db?sslpassword=other%20word"
    with pytest.raises(storage.StorageError) as caught, storage.guard(url):
        raise RuntimeError("no p@ss, p%40ss, other word, other%20word, other+word, password='x y'")
    for secret in ("p@ss", "p%40ss", "other", "x y"):
        assert secret not in str(caught.value)


def test_what_a_study_writes_holds_no_password(tmp_path: Path) -> None:
    from ablations.scheduling import files

    url = urls.shown("postgresql://me:s3cret@h/db?password=s3cret")
    files.write_plan(tmp_path, plans.read(NODE), [], url, empty_ledger())
    assert "s3cret" not in (tmp_path / "study.yaml").read_text()


@pytest.mark.parametrize(
    ("url", "expected"),
    [("sqlite://", "in memory"), ("sqlite:///", "in memory"), ("sqlite:///:memory:", "in memory"), ("journal:", "")],
)
def test_storage_that_nobody_can_share_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.setattr(runner, "check", lambda *_: None)
    assert expected in refusal(capsys, write(NODE), f"study.storage={url}")


@pytest.mark.parametrize("place", ["pipe", "/dev/full"])
def test_a_journal_that_has_no_end_is_refused(here: Path, place: str) -> None:
    os.mkfifo(here / "pipe")
    with pytest.raises(InputError, match="is a pipe, a socket or a device, and must be a file"):
        open_storage(f"journal:{place}")


@pytest.mark.parametrize("table", ["studies (evil TEXT)", "experiments (name TEXT)"])
def test_a_database_of_another_program_is_refused_and_left(here: Path, table: str) -> None:
    path = here / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"belongs to another program .tables: {table.split()[0]}"):
        open_storage(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_an_option_of_sqlite_is_refused(here: Path) -> None:
    with pytest.raises(InputError, match="has the option mode: allowed is sqlite:///FILE"):
        open_storage("sqlite:///x.db?mode=ro&uri=true")
    assert not list(here.glob("x.db*"))


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 20, b"{}\n", b"[1]\n3\n", b'{"op_code": "x"}\n', b"half a line"]
)
@pytest.mark.parametrize("kind", ["journal:", "sqlite:///"])
def test_damaged_storage_is_refused_and_left(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, content: bytes
) -> None:
    monkeypatch.setattr(runner, "check", lambda *_: None)
    path = here / "file"
    path.write_bytes(content)
    if kind == "journal:" and content == b"half a line":
        pytest.skip("an entry that is being written")
    refusal(capsys, write(NODE), f"study.storage={kind}{path}")
    assert path.read_bytes() == content


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    yield path
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inside:
        yield from places(value, (*path, key))


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(node)
    changed[path[0]] = replaced(node[path[0]], path[1:], value)
    return changed


FULL = {
    **NODE,
    "kind": "factorial",
    "select": {"metric": "val/accuracy", "direction": "maximize"},
    "tuning": {
        "key": "optimizer.lr",
        "levels": [1e-3, 2e-3],
        "overrides": ["model.dim=8"],
        "once": True,
        "seed": 0,
        "extend": 1,
    },
}
FULL["blocks"] = [
    {**NODE["blocks"][0], "overrides": ["model.dim=8"], "design": "fraction", "budget": 100, "margin": 0.5,
     "negative_controls": ["conv"], "reference": {"size": 3},
     "factors": {"size": {"key": "mixer.size", "levels": [3, 5], "labels": ["small", "large"]},
                 "conv": {"key": "shell.conv", "levels": [0, 3]}}},
]  # fmt: skip
SEARCH = {
    "name": "tune", "question": "?", "kind": "tune", "objectives": [{"metric": "val/accuracy"}], "trials": 3,
    "overrides": [], "sampler": "tpe", "pruner": "median",
    "space": {"optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True, "int": False},
              "model.dim": {"choices": [8, 16]}},
    "mixer_space": {"pool": {"mixer.size": {"choices": [3, 5]}}},
}  # fmt: skip
WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 10**15, 1e300, "", "x", "a b{[", "${x", "\n", "é'\"\\", "hydra.run.dir", "seed", "x" * 500,
    [], [None], [[]], [1, "a"], {}, {"x": 1}, {"": {}}, {1: [2]}, [{"name": "a"}],
]  # fmt: skip


@pytest.mark.parametrize("values", [1, pytest.param(len(WRONG), marks=pytest.mark.slow)])
@pytest.mark.parametrize("node", [FULL, SEARCH], ids=["factorial", "search"])
def test_wrong_value_anywhere_is_taken_or_refused_in_a_line(node: dict[str, Any], values: int) -> None:
    assert expand(plans.read(node), [])
    refused = 0
    for number, path in enumerate(places(node)):
        for step in range(values):
            value = WRONG[(7 * number + step) % len(WRONG)]
            changed = replaced(node, path, value)
            try:
                plan = plans.read(changed)
                expand(plan, [])
                sections(plan, [])
            except InputError as error:
                refused += "\n" not in str(error)
            except Exception as error:
                raise AssertionError(f"{path} = {value!r}: {error!r}") from error
    assert refused > 15 * values


@pytest.mark.slow
def test_wrong_values_in_several_places_are_taken_or_refused_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    for count in range(400):
        node: Any = draw.choice([FULL, SEARCH])
        for _ in range(draw.randint(1, 4)):
            node = replaced(node, draw.choice([path for path in places(node) if path]), draw.choice(WRONG))
        assert refusal(capsys, write(node, f"s{count}.yaml"))


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\0\x80", b"", b"[1]", b"{", b"null", b'"text"', b"{}", b"[" * 2000, b"a: [", b'{"status": 5}'],
)
@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "provenance.json"])
def test_comparison_of_damaged_runs_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: bytes
) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", "attention", seed, 0.5)
    (tmp_path / "a1" / name).write_bytes(damage)
    assert compare.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"a1/{name}" in said


def test_comparison_says_which_folder_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "a", "attention", 0, 0.5)
    shutil.copytree(tmp_path / "a", tmp_path / "b.aside-1")
    assert len(runs.find([tmp_path])) == 1
    assert compare.main([str(tmp_path / "nowhere")]) == 2
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert compare.main([str(tmp_path)]) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("values", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_report_of_a_damaged_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], values: int) -> None:
    good = fake_study.pde_terms(tmp_path / "good", seeds=2, blocks=["initial"], logs=False)
    plan, table = yaml.safe_load((good / "study.yaml").read_text()), (good / "trials.csv").read_text()
    texts: list[tuple[str, bytes]] = [(name, b"\xff\0\x80") for name in ("study.yaml", "trials.csv")]
    texts += [("study.yaml", content) for content in (b"", b"5", b"[a]", b"[" * 20_000, b"a: [")]
    texts += [("trials.csv", content) for content in (b"", b"number,block\n1,2\n", table[:900].encode())]
    texts += [
        ("trials.csv", table.replace("complete", "compleet", 1).encode()),
        ("trials.csv", f"{table}1,2\n".encode()),
    ]
    wrong: list[Any] = [None, 5, "x", [], [None], {}, {"x": 1}]
    for number, path in enumerate(list(places(plan))[:: 1 if values > 1 else 3]):
        for step in range(values):
            value = wrong[(3 * number + step) % len(wrong)]
            texts.append(("study.yaml", yaml.safe_dump(replaced(plan, path, value)).encode()))
    refused = 0
    for place, (name, content) in enumerate(texts):
        study = tmp_path / "damaged"
        study.mkdir()
        (study / "study.yaml").write_bytes((good / "study.yaml").read_bytes())
        (study / "trials.csv").write_bytes((good / "trials.csv").read_bytes())
        (study / name).write_bytes(content)
        status = report.main([str(study)])
        said = capsys.readouterr().err
        assert (status, said.count("\n")) in ((0, 0), (2, 1)), (place, said)
        refused += status == 2
        shutil.rmtree(study)
    assert refused > 15


def test_report_goes_on_without_the_damaged_files_of_its_runs(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", seeds=2, blocks=["initial"], logs=False)
    damages = [b"", b"\xff\0\x80" * 50, b"PK\x03\x04damaged"]
    for number, damage in enumerate(damages):
        folder = path / "trials" / f"{2 * number:05d}"
        for name in ("predictions.npz", "provenance.json", "metrics.csv"):
            (folder / name).write_bytes(damage)
        (folder / "samples").mkdir()
        (folder / "samples" / "sheet.png").write_bytes(damage)
    (path / "trials" / "00009" / "provenance.json").write_text(json.dumps({"hardware": [1], "data": "x", "git": 5}))
    report.build(path)
    notes = " ".join(json.loads((path / "summary.json").read_text())["notes"])
    assert "3 of 18 complete trials have no provenance.json to be read" in notes
    assert "predictions.npz cannot be read" in notes


def test_figures_of_hostile_names_stay_in_their_folder(tmp_path: Path) -> None:
    blocks = ["../../../evil", "..-..-..-evil", "x" * 100]
    path = fake_study.pde_terms(tmp_path / "a" / "b" / "s", seeds=2, blocks=blocks, logs=False)
    report.build(path)
    assert not list(tmp_path.glob("*.svg"))
    drawn = [figure.name for figure in (path / "figures").iterdir()]
    assert len([name for name in drawn if "evil" in name]) == 2 * len([name for name in drawn if "xxx" in name])
    assert max(map(len, drawn)) < 150
