"""Whether compiled code runs in this process; needs neither torch nor numba."""

from __future__ import annotations

import os
from importlib.util import find_spec


def _reason() -> str | None:
    if find_spec("numba") is None:
        return "needs numba, which is not installed"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return "needs numba's compiler, which NUMBA_DISABLE_JIT turns off"
    return None


_REFUSAL = _reason()


def refusal() -> str | None:
    """Why no compiled code runs in this process, or None; without it torch's operations serve.

    It was found out when this file was imported: whether numba is there, not whether it works, since importing it takes
    half a second.
    """
    return _REFUSAL
