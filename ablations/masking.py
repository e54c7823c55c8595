"""Passwords in URLs and in what is said of them. Imports nothing that takes time."""

from __future__ import annotations

import re

MASK = "***"
SECRET = re.compile(r"pass|pwd|secret|token|credential|dsn|odbc_connect", re.IGNORECASE)
"""Words in the names of a URL's options that hold passwords, by themselves or inside."""
_OF_A_URL = re.compile(r"(://[^\s:/@]*:)[^\s'\"]*(?=@)")
_IN_TEXT = (
    _OF_A_URL,
    re.compile(r"(\b[\w%-]*(?:pass|pwd|secret|token)[\w%-]*=)('[^']*'|\"[^\"]*\"|[^\s&;,'\"]+)", re.IGNORECASE),
)


def masked(text: str) -> str:
    """`text` without what looks like the password of a URL or of a connection's options."""
    for pattern in _IN_TEXT:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def without_url_passwords(text: str) -> str:
    """`text`, such as source code, without the passwords of URLs; all else stays."""
    return _OF_A_URL.sub(rf"\g<1>{MASK}", text)
