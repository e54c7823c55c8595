"""Registering a study's plan in its storage and its directory, and recording what changes later in both."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml  # type: ignore[import-untyped]

from ablations.registration import document, environment_lock
from ablations.registration.document import ENVIRONMENTS, Amendment, Document, Registration
from operators.errors import InputError
from tasks.system import results

_REGISTRATION, _AMENDMENT = "registration/", "amendment/"
"""What the names of the storage's entries begin with: one entry is written once, so that machines do not overwrite
each other's."""


class Attributes(Protocol):
    """The attributes of a study in a storage, as `optuna.Study` has them."""

    @property
    def user_attrs(self) -> dict[str, Any]: ...

    def set_user_attr(self, key: str, value: Any) -> None: ...


def register(study: Attributes, plan: Mapping[str, Any], on_disk: Document | None, ended: int) -> Document:
    """Register the `plan` of a new study; of one that is registered, record as an amendment what is new in the plan.

    Args:
        study: the study in its storage, which keeps the registration.
        plan: the content of `study.yaml`, but for what is recorded about it.
        on_disk: what the study's directory has already, see `read`.
        ended: how many trials have a result.
    """
    environment = environment_lock.collect().digest
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    recorded = stored(study.user_attrs)
    if recorded is None and on_disk is not None and on_disk.registration and not on_disk.faults:
        recorded = on_disk  # the storage is a new one, or the study has a new name in it
        _store(study, recorded.registration, recorded.registered)
        for amendment in recorded.amendments:
            _store_amendment(study, amendment)
    if recorded is None:
        new = {**plan, ENVIRONMENTS: [environment]}
        registration = Registration(now, document.digest(new), ended)
        _store(study, registration, new)
        return Document(new, registration, ())
    environments = list(recorded.plan.get(ENVIRONMENTS, []))
    if environment not in environments:
        environments.append(environment)
    amended = recorded.amended({**plan, ENVIRONMENTS: environments}, now, ended)
    for amendment in amended.amendments[len(recorded.amendments) :]:
        _store_amendment(study, amendment)
    return amended


def read(path: Path) -> Document | None:
    """The document in the file at `path`; None where there is none, or none that can be read."""
    text = results.read(path)
    if text is None:
        return None
    try:
        content = yaml.safe_load(text)
        return document.read(content) if isinstance(content, dict) else None
    except (InputError, ValueError, RecursionError, yaml.YAMLError):
        return None


def edited(on_disk: Document | None, recorded: Document) -> bool:
    """Whether the file is registered, and not one that this program has written, now or earlier."""
    if on_disk is None or on_disk.registration is None:
        return False
    assert recorded.registration is not None
    known = {amendment.digest for amendment in recorded.amendments}
    strange = any(amendment.digest not in known for amendment in on_disk.amendments)
    return bool(on_disk.faults) or on_disk.registration.digest != recorded.registration.digest or strange


def stored(attributes: Mapping[str, Any]) -> Document | None:
    """The document that the attributes of a study in a storage hold; None where it was never registered.

    Two machines may have registered the study at the same moment: the earlier registration counts for both.
    """
    entries = sorted(
        (entry for key, entry in attributes.items() if key.startswith(_REGISTRATION)), key=lambda entry: entry["at"]
    )
    if not entries:
        return None
    amendments = document.read_amendments([of for key, of in attributes.items() if key.startswith(_AMENDMENT)])
    ordered = tuple(sorted(amendments, key=lambda amendment: amendment.at))
    plan = document.applied(entries[0]["plan"], ordered)
    return Document(plan, document.read_registration(entries[0]), ordered)


def _store(study: Attributes, registration: Registration | None, plan: Mapping[str, Any]) -> None:
    assert registration is not None
    entry = {**registration.written, "plan": document.without_design(plan)}
    study.set_user_attr(f"{_REGISTRATION}{_writer(registration.at)}", entry)


def _store_amendment(study: Attributes, amendment: Amendment) -> None:
    study.set_user_attr(f"{_AMENDMENT}{_writer(amendment.at)}", amendment.written)


def _writer(at: str) -> str:
    return f"{at} {socket.gethostname()} {os.getpid()}"
