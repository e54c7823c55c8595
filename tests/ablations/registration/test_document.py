"""The registered plan: it follows from the file whatever was amended, and an edit is noticed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import yaml

from ablations.registration import document
from ablations.registration.document import Amendment, Document, Registration
from operators.errors import InputError

PLAN: dict[str, Any] = {
    "name": "s",
    "question": "Which window?",
    "seeds": 3,
    "blocks": [{"name": "window", "factors": {"size": {"levels": [3, 5.0, None]}}, "cells": [{"size": "3"}]}],
    "code": "abc",
}


def registered() -> Document:
    return Document(PLAN, Registration("2026-01-01T00:00:00+00:00", document.digest(PLAN)), ())


def amended() -> Document:
    first = registered().amended({**PLAN, "seeds": 5}, "2026-01-02T00:00:00+00:00", 9)
    return first.amended({**first.plan, "code": "def", "storage": "x"}, "2026-01-03T00:00:00+00:00", 0)


def test_registered_plan_follows_from_the_file() -> None:
    again = document.read(yaml.safe_load(yaml.safe_dump(amended().written)))
    assert again.faults == []
    assert again.plan["seeds"] == 5
    assert again.registered == PLAN
    assert [amendment.seeds for amendment in again.amendments] == [(3, 5), None]
    assert document.applied(PLAN, again.amendments) == dict(again.plan)


def test_amendments_are_told_with_what_was_known_then() -> None:
    first, second = amended().amendments
    assert first.sentence == "seeds were raised from 3 to 5 after results existed (9 trials had ended)"
    assert second.sentence == "the code that analyses was changed, storage was added before any trial had ended"
    assert (first.matters, second.matters) == (True, False)
    moved = registered().amended({**PLAN, "storage": "y"}, "now", 9).amendments[0]
    assert not moved.matters


def test_what_does_not_change_is_no_amendment() -> None:
    same = deepcopy(PLAN)
    same["blocks"][0]["cells"] = []  # follows from the factors
    assert registered().amended(same, "later", 4).amendments == ()


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.update(question="Another?"),
        lambda content: content.update(seeds=3),
        lambda content: content.update(more=1),
        lambda content: content["blocks"][0]["factors"]["size"]["levels"].append(9),
        lambda content: content["registration"].update(digest="0" * 64),
        lambda content: content["amendments"][0].update(ended=0),
        lambda content: content["amendments"][0].update(at="2025-01-01T00:00:00+00:00"),
        lambda content: content["amendments"][0]["changes"]["seeds"].update(before=4),
        lambda content: content["amendments"].pop(0),
        lambda content: content["amendments"].pop(),
    ],
)
def test_every_edit_is_noticed(edit: Any) -> None:
    content = deepcopy(amended().written)
    edit(content)
    assert document.read(content).faults


def test_amendments_of_two_machines_at_one_moment_are_both_valid() -> None:
    here, there = (registered().amended({**PLAN, "seeds": seeds}, f"t{seeds}", 1).amendments[0] for seeds in (5, 7))
    both = Document({**PLAN, "seeds": 7}, registered().registration, (here, there))
    assert both.faults == []
    assert both.registered == PLAN


def test_plan_that_was_never_registered_has_no_faults() -> None:
    assert document.read(PLAN).faults == []


@pytest.mark.parametrize("damage", [{"registration": 3}, {"amendments": [{"at": "now"}]}, {"registration": {"at": 1}}])
def test_damage_is_one_line(damage: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="are damaged"):
        document.read({**PLAN, **damage})


def test_digest_does_not_depend_on_order_or_on_the_kind_of_keys() -> None:
    assert document.digest({"a": {2: 1, 10: 2}, "b": 1}) == document.digest({"b": 1, "a": {"10": 2, "2": 1}})
    assert document.digest({"a": 1}) != document.digest({"a": 2})


def test_amendment_reads_what_it_writes() -> None:
    amendments = amended().amendments
    assert document.read_amendments([amendment.written for amendment in amendments]) == amendments
    assert isinstance(amendments[0], Amendment)
