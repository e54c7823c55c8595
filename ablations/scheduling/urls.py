"""URLs of Optuna storages: what they say, and how they are shown without their passwords."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ablations.masking import MASK, SECRET, masked
from operators.errors import InputError

JOURNAL = "journal:"


def default_url(directory: Path) -> str:
    """The SQLite file of a study."""
    return f"sqlite:///{os.path.realpath(directory / 'study.db')}"


def parsed(url: str) -> URL:
    """The parts of the URL of a database; raises `InputError` where it is none."""
    try:
        parts = make_url(url)
        if parts.host and "@" in parts.host:
            raise ArgumentError("an @ in a password is written %40")
        return parts
    except (ArgumentError, ValueError) as error:
        allowed = "sqlite:///FILE, postgresql://… and journal:FILE"
        raise InputError(
            f"study.storage={shown(url)!r} is no storage: allowed are {allowed}, with %40 for an @"
        ) from error


def kind_of(url: str) -> str:
    """`sqlite`, `postgresql` or another of SQLAlchemy's."""
    return parsed(url).get_backend_name()


def shown(url: str) -> str:
    """`url` without passwords, wherever in it they are."""
    if url.startswith(JOURNAL):
        return url
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        scheme, _, rest = url.partition(":")
        return masked(f"{scheme}:{MASK}@{rest.rpartition('@')[2]}" if "@" in rest else url)
    options = {name: MASK if SECRET.search(name) else value for name, value in parts.query.items()}
    hidden = parts.set(
        query=options,
        password=None if parts.password is None else MASK,
        host=parts.host and parts.host.rpartition("@")[2],  # a password with an @ that is not encoded
    )
    return hidden.render_as_string(hide_password=False).replace(quote(MASK), MASK)


def without_secrets(url: str, text: str) -> str:
    """`text` without the passwords that `url` holds, as they are or percent-encoded."""
    if not url.startswith(JOURNAL):
        parts = parsed(url)
        secrets = [parts.password, *(value for name, value in parts.query.items() if SECRET.search(name))]
        for secret in secrets:
            for value in (secret,) if isinstance(secret, str) else secret or ():
                for spelling in {value, quote(value), quote_plus(value)} - {""}:
                    text = text.replace(spelling, MASK)
    return masked(text)
