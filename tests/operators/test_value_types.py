"""Parameters of a stranger's mixer against the annotations of its constructor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest

import operators
from operators import InputError, Site, registry, value_types
from tests.operators.throwaway.sound import Mean


class Stranger(Mean):
    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        start: float = 0.5,
        count: int | None = None,
        on: bool = False,
        word: str = "a",
        kind: Literal["linear", "cubic"] = "linear",
        sizes: Sequence[int] = (1, 2),
        pair: tuple[float, float] = (0.0, 1.0),
        scales: Mapping[str, float] | None = None,
        free: Any = None,
        unknown: Site | None = None,
    ) -> None:
        super().__init__(site, backend=backend)
        self.scaled = 2 * start  # of a list it is a list: the constructor does not notice


@pytest.fixture(autouse=True)
def stranger() -> Iterator[None]:
    card = replace(registry.describe("identity"), name="stranger", published=(), shells={}, defaults={})
    registry.register(card)(Stranger)
    yield
    del registry._cores["stranger"]


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"start": [1, 2]}, "mixer stranger: start=[1, 2] must be a number"),
        ({"start": "half"}, "start='half' must be a number"),
        ({"start": True}, "start=True must be a number"),
        ({"start": None}, "start=None must be a number"),
        ({"count": 1.5}, "count=1.5 must be an integer or null"),
        ({"count": "3"}, "count='3' must be an integer or null"),
        ({"on": 1}, "on=1 must be true or false"),
        ({"word": 3}, "word=3 must be a text"),
        ({"kind": "cubik"}, "kind='cubik' must be one of linear, cubic; did you mean 'cubic'?"),
        ({"sizes": 3}, "sizes=3 must be a list whose entries are each an integer"),
        ({"sizes": [1, "a"]}, "sizes=[1, 'a'] must be a list whose entries are each an integer"),
        ({"sizes": "12"}, "sizes='12' must be a list"),
        ({"pair": [1]}, "pair=[1] must be a list of 2: a number, a number"),
        ({"pair": [1, "b"]}, "pair=[1, 'b'] must be a list of 2"),
        ({"scales": {"a": "b"}}, "scales={'a': 'b'} must be a mapping whose values are each a number or null"),
        ({"scales": [1]}, "scales=[1] must be a mapping"),
    ],
    ids=str,
)
def test_value_of_another_kind_is_refused_in_one_line(params: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        operators.create("stranger", 4, **params)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "value", "meant"),
    [("float", 2, 2.0), ("float | None", 2, 2.0), ("float | int", 2, 2), ("int", 2, 2), ("float", True, True)],
)
def test_a_whole_number_is_a_float_where_only_a_float_is_meant(annotation: str, value: Any, meant: Any) -> None:
    converted = value_types.as_annotated(value, annotation)
    assert (converted, type(converted)) == (meant, type(meant))


@pytest.mark.parametrize(
    "params",
    [
        {"start": 1},
        {"start": 0.25, "count": 3, "on": True, "word": "b", "kind": "cubic"},
        {"sizes": [3, 4], "pair": [0, 1.5], "scales": {"a": 1, "b": 0.5}},
        {"count": None, "scales": None, "free": len, "unknown": "whatever a stranger's class may be made of"},
    ],
    ids=str,
)
def test_value_that_fits_is_taken(params: dict[str, Any]) -> None:
    operators.create("stranger", 4, **params)


def test_constructors_own_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, start: float = 0.5, backend: str) -> None:
        raise ZeroDivisionError(start)

    monkeypatch.setattr(Stranger, "__init__", broken)
    with pytest.raises(ZeroDivisionError):
        operators.create("stranger", 4, start=1)


def test_constructors_own_words_say_more() -> None:
    with pytest.raises(InputError, match=r"mixer\.size='a' must be an integer >= 3"):
        operators.create("pool", 4, size="a")


@pytest.mark.parametrize("name", operators.names())
def test_defaults_of_every_mixer_fit_their_annotations(name: str) -> None:
    core = registry.core_class(name)
    registry._check_types(core, core.card.defaults)
