"""Hydra's group `mixer`, filled from the mixers' cards: an option for each, with the defaults of its constructor."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from operators import registry
from tasks.config.overrides import PDE_MIXER


def offer() -> None:
    """Make `mixer=NAME` an option for every registered mixer, those of installed packages among them.

    Only `pde_ssm`, whose parameters live in a node of their own, and `hybrid`, which is made of others, have files in
    `conf/mixer`. A file `mixer/NAME.yaml` in a folder given by `--config-dir` comes before the card.
    """
    store = ConfigStore.instance()
    for name in registry.names():
        if name != PDE_MIXER:
            node = {"name": name, "backend": "auto", **registry.defaults(name)}
            store.store(group="mixer", name=name, node=node, provider="operators")
