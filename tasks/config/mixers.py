"""Hydra's groups `mixer`, `model` and `probe`, filled from data: mixers' cards, published models, and probes.

A mixer's option has the defaults of its constructor, a model's the fields of its trunk, a probe's its dials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from hydra.core.config_store import ConfigStore

from models.presets import published_mixers
from models.published import MODELS
from models.spec import MixerSpec, StageMixers
from operators import registry
from operators.errors import check_names
from tasks.config.overrides import PDE_MIXER

_MAY_PROBE = re.compile("^-|probe|experiment")
PUBLISHED, STAGES = "published", "stages"
"""Options of the group `mixer`: the authors' own mixers of a published model, and mixers stage by stage."""


def offer(words: Iterable[str]) -> None:
    """Make `mixer=NAME` an option for every registered mixer, `model=NAME` for every published model, and `probe=NAME`.

    Mixers of installed packages are among them. A published model also chooses `mixer=published`, its authors' mixers,
    where nothing else chooses one.

    Only `pde_ssm`, whose parameters live in a node of their own, `hybrid` and `stages`, which are made of others, have
    files in `conf/mixer`. A file `mixer/NAME.yaml` in a folder given by `--config-dir` comes before the card.

    Args:
        words: of the command line. Probes bring numpy, and are options only where a word may be about one: it names a
            probe or an experiment, or is a flag.
    """
    store = ConfigStore.instance()
    if f"{PUBLISHED}.yaml" not in store.repo.get("mixer", {}):
        _offer_published(store)
    if "probe" not in store.repo and any(map(_MAY_PROBE.search, words)):
        _offer_probes(store)
    for name in registry.names():
        if name != PDE_MIXER:
            node = {"name": name, "backend": "auto", **registry.defaults(name)}
            store.store(group="mixer", name=name, node=node, provider="operators")


def _offer_published(store: ConfigStore) -> None:
    node = {"name": PUBLISHED, "backend": "auto"}
    store.store(group="mixer", name=PUBLISHED, node=node, provider="models")
    for name, model in MODELS.items():
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(model.spec).items()}
        own = {"defaults": [{"override /mixer": PUBLISHED}], "model": {"name": name, **fields, "match": None}}
        store.store(group="model", name=name, node=own, package="_global_", provider="models")


def _offer_probes(store: ConfigStore) -> None:
    """Each probe with its dials, null where its difficulty decides; and with what the trunk has to be for it."""
    from tasks.probes import registry as probes
    from tasks.probes.probe import CELLS

    for name, kind in probes.PROBES.items():
        pooling = "none" if kind.kind in CELLS else "mean"
        trunk = {"depth": kind.depth, "positions": kind.positions, "pooling": pooling}
        node = {"name": name, "difficulty": 0, **dict.fromkeys(probes.dials(name))}
        store.store(
            group="probe", name=name, node={"probe": node, "model": trunk}, package="_global_", provider="tasks"
        )


def expanded(config: dict[str, Any]) -> dict[str, Any]:
    """`config`, whose mixer is `published`, with the mixers that this means written out, stage by stage.

    Raises:
        InputError: a model that is not published, or parameters beside `mixer=published`.
    """
    node, model = config["mixer"], config["model"]
    check_names(f"mixer={PUBLISHED}", node, ["name", "backend"])
    stages = written(published_mixers(str(model.get("name") if isinstance(model, Mapping) else model)))
    return {**config, "mixer": {"name": STAGES, "backend": node.get("backend", "auto"), "stages": stages}}


def written(mixers: StageMixers) -> list[list[dict[str, Any]]]:
    """Mixers as `mixer.stages` says them."""
    return [[_entry(spec) for spec in stage] for stage in mixers.stages]


def _entry(spec: MixerSpec) -> dict[str, Any]:
    shell = dict(spec.shell) if isinstance(spec.shell, Mapping) else {"name": spec.shell}
    backend = {} if spec.backend == "auto" else {"backend": spec.backend}
    return {"name": spec.name, **backend, **spec.params, "shell": shell}
