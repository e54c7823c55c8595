"""Plans that must not be carried out are refused for their names, their size or any value in them."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ablations import nodes
from ablations import plan as plans
from ablations.trials import expand, sections
from operators import InputError
from tests.ablations.conftest import NODE
from tests.ablations.hostile.conftest import places, refusal, replaced, write

NAMES = [
    "../../../../evil", "/tmp/evil", "a/b", "..", ".", "", " ", "a ", ".hidden", "-rf", "nul", "COM1.txt", "a\nb",
    "a\x7fb", "a\\b", "x" * 101, "ü" * 60, 5, None, ["a"], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_name_that_is_no_folder_is_refused(here: Path, capsys: pytest.CaptureFixture[str], name: Any) -> None:
    assert "study name=" in refusal(capsys, write({**NODE, "name": name}))
    if isinstance(name, str):
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
