"""Memory that the process keeps when it is freed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_MAX: 65536}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """What is freed in here is not given back to the system, where glibc manages memory.

    Otherwise it depends on what was freed before whether a call finds its memory or has the system map and clear new
    pages, which may take longer than the call itself, and stays so for all calls in a row. Training, which asks for the
    same memory in every step, finds it. Afterwards the settings are those that glibc arrives at with large arrays.
    """
    library = ctypes.CDLL(None)
    set_option = getattr(library, "mallopt", None)
    if set_option is None or not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    for option in _USUAL:
        set_option(option, 0 if option == _MMAP_MAX else -1)
    try:
        yield
    finally:
        for option, value in _USUAL.items():
            set_option(option, value)
        give_back()


def give_back() -> None:
    """Return freed memory to the system, where glibc manages it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def allocation_errors() -> Iterator[None]:
    """Raise `MemoryError` where one of PyTorch's allocators finds too little memory."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise MemoryError from error
        raise
