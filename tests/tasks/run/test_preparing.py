"""What is found out of a run before anything is written, and at what expense."""

from __future__ import annotations

import resource
from pathlib import Path
from unittest import mock

import pytest
import torch

from operators import InputError
from tasks.config.composition import read
from tasks.planning import memory
from tasks.run.building import check_share
from tasks.run.preparing import check, open_data, prepare
from tests.tasks.conftest import TINY

LARGE = ("mixer=attention", "model.dim=4096", "model.depth=12")


def test_large_run_is_checked_without_its_weights() -> None:
    own = {override.partition("=")[0] for override in LARGE}
    settings = read([*(o for o in TINY if o.partition("=")[0] not in own), *LARGE])
    data = open_data(settings)
    assert data is not None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with mock.patch.object(memory, "available_bytes", return_value=2**50):
        check(settings, data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # of 10 GB


def test_prepared_run_holds_what_begins_it_and_has_written_nothing(tmp_path: Path) -> None:
    settings = read(TINY)
    run = prepare(settings, open_data(settings), tmp_path / "run", device="meta")
    assert all(parameter.is_meta for parameter in run.module.model.parameters())
    assert (run.facts["mixer"], run.facts["params"]) == ("pool", sum(p.numel() for p in run.module.parameters()))
    assert not list(tmp_path.iterdir())
    real = prepare(settings, open_data(settings), tmp_path / "run")
    assert real.facts == run.facts
    assert real.module.state_dict().keys() == run.module.state_dict().keys()
    assert all(torch.isfinite(weight).all() for weight in real.module.parameters())


@pytest.mark.parametrize(("share", "batches"), [(0.09, 11), (0.001, 999), (0.4, 2)])
def test_share_that_comes_to_no_batch_is_refused(share: float, batches: int) -> None:
    with pytest.raises(InputError, match=rf"trainer: .*{share} \* {batches} < 1.*limit_val_batches"):
        check_share("val", share, batches)


@pytest.mark.parametrize(("share", "batches"), [(0.1, 11), (0.0, 11), (1.0, 1), (0, 5), (3, 1), (0.5, 2)])
def test_share_of_batches_is_taken(share: float, batches: int) -> None:
    check_share("val", share, batches)
