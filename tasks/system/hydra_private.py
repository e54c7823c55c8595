"""All private interfaces of Hydra that this project uses: what an upgrade of Hydra breaks, it breaks here.

`tests/tasks/system/test_private.py` names the one that is gone.
"""

from __future__ import annotations

from argparse import ArgumentParser

from hydra._internal import utils


def arguments_parser() -> ArgumentParser:
    """The parser of Hydra's own command line."""
    return utils.get_args_parser()
