import pytest

import operators
from operators import InputError, catalogue, registry, value_types


def test_cards_read_from_the_source_are_those_of_the_cores():
    entries = catalogue.entries()
    assert sorted(entries) == operators.names()
    for name, entry in entries.items():
        core = registry.core_class(name)
        assert entry.card == core.card
        assert (entry.module, entry.core) == (core.__module__, core.__qualname__)
        assert set(entry.parameters) == set(core.card.defaults)
        registry.check(name, core.card.defaults, "common", "auto")


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (3, "int", True),
        (True, "int", False),
        (3, "float", True),
        ("3", "float", False),
        (None, "int | None", True),
        ("x", "int | None", False),
        (["a"], "Sequence[str]", True),
        ("a", "Sequence[str]", False),
        ([1], "Sequence[str]", False),
        ({"a": "b"}, "str | Mapping[str, str]", True),
        ({"a": 1}, "str | Mapping[str, str]", False),
        (object(), "Something", True),
    ],
)
def test_values_are_compared_with_annotations(value, annotation, fits):
    if fits:
        value_types.check("it", value, annotation)
    else:
        with pytest.raises(InputError, match=r"it=.* must be "):
            value_types.check("it", value, annotation)
