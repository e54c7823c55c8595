"""Not one traceback, hang or loss: the whole drive is slow, a few cases of different areas are not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.cases import collect
from tests.hostile.drive import Drive
from tests.hostile.store import Store

CASES = collect()
FEW = (  # none needs a good run first
    "command_lines/interpolation in a ring",
    "exports/no arguments",
    "storages/a scheme of nothing",
    "benchmark/a setting that is refused",
)


def _driven(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Iterator[Drive]:
    """The cases of the tests that were selected, all begun at once, so that they are carried out two at a time."""
    own = [item for item in request.session.items if item.path == request.path]
    labels = [
        item.callspec.params["label"] for item in own if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    root = factory.mktemp("hostile")
    drive = Drive([CASES[label] for label in dict.fromkeys(labels)], root / "cases", Store(root / "store"))
    yield drive
    drive.close()


@pytest.fixture(scope="module")
def drive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    yield from _driven(request, tmp_path_factory)


@pytest.mark.parametrize("label", FEW)
def test_few(label: str, drive: Drive) -> None:
    verdict = drive.verdicts[label].result()
    assert not verdict.faults, verdict.outcome.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("label", CASES)
def test_all(label: str, drive: Drive) -> None:
    verdict = drive.verdicts[label].result()
    assert not verdict.faults, verdict.outcome.stderr[-4000:]
