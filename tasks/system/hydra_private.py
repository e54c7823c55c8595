"""All private interfaces of Hydra that this project uses: what an upgrade of Hydra breaks, it breaks here.

`tests/tasks/system/test_private.py` names the one that is gone.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager

from hydra._internal import utils
from hydra._internal.hydra import Hydra


def arguments_parser() -> ArgumentParser:
    """The parser of Hydra's own command line."""
    return utils.get_args_parser()


@contextmanager
def mode_by_flag() -> Iterator[None]:
    """Within it `--multirun` alone says whether there are several jobs.

    Hydra composes everything twice otherwise, the first time to see whether a configuration sets `hydra.mode`.
    """
    composed = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = composed  # type: ignore[method-assign]
