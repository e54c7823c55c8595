"""What launchers and users put into the environment for the processes of a run. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping

from operators.errors import InputError

_COUNTS = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "NUMBA_NUM_THREADS")
_NUMBERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
_PSEUDO_STEP = 0xFFFF_FFF0
"""From here on SLURM numbers what are no steps of `srun`: a batch script, an interactive shell."""


def rank() -> int:
    """The number of this process in a distributed run, as its launcher has put it into the environment; else 0."""
    text = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    return int(text) if text.isdecimal() else 0


def check() -> None:
    """Refuse numbers of processes and threads that are none.

    Raises:
        InputError: names the variable; also of a cache that PyTorch cannot make.
    """
    given = {name: os.environ[name] for name in (*_COUNTS, *_NUMBERS, "MASTER_PORT") if name in os.environ}
    for name, text in given.items():
        least, most = (1, 65535) if name == "MASTER_PORT" else (int(name in _COUNTS), 2**31)
        if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
            raise InputError(
                f"{name}={text!r} in the environment must be an integer >= {least} and <= {most}: unset it"
            )
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if cache:
        try:
            os.makedirs(cache, exist_ok=True)  # as importing torch does, which fails of it
        except OSError as error:
            raise InputError(
                f"TORCHINDUCTOR_CACHE_DIR={cache} in the environment is no folder that can be made ({error.strerror}): "
                "unset it"
            ) from error
    for number, count in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if number in given and count in given and int(given[number]) >= int(given[count]):
            raise InputError(f"{number}={given[number]} in the environment must be less than {count}={given[count]}")


def started_by_srun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a step of `srun`, and not merely inside what SLURM has allocated."""
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", ""))
    return step.isdecimal() and int(step) < _PSEUDO_STEP
