"""Steps that make a case's files."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile.case import Step
from tests.hostile.store import Store


def copy(name: str, target: str = "") -> Step:
    """The good thing `name` of the store."""

    def step(work: Path, store: Store) -> None:
        source, goal = store.get(name), work / (target or name)
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, goal, symlinks=True)
        else:
            shutil.copy(source, goal)

    return step


def put(path: str, content: bytes | str | Callable[[], bytes] = b"") -> Step:
    """A file with that content, or what it returns, in place of whatever is there."""

    def step(work: Path, _: Store) -> None:
        target = work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        made = content() if callable(content) else content
        target.write_bytes(made.encode() if isinstance(made, str) else made)

    return step


def edit(path: str, change: Callable[[bytes], bytes]) -> Step:
    """The file's content, changed."""

    def step(work: Path, _: Store) -> None:
        (work / path).write_bytes(change((work / path).read_bytes()))

    return step


def cut(path: str, share: float) -> Step:
    """The file without its end."""
    return edit(path, lambda content: content[: int(len(content) * share)])


def remove(*paths: str) -> Step:
    """Without those files or folders."""

    def step(work: Path, _: Store) -> None:
        for path in paths:
            if (work / path).is_dir():
                shutil.rmtree(work / path)
            else:
                (work / path).unlink()

    return step


def folder(*paths: str) -> Step:
    """Empty folders."""

    def step(work: Path, _: Store) -> None:
        for path in paths:
            (work / path).mkdir(parents=True)

    return step


def link(path: str, target: str) -> Step:
    """A symbolic link."""

    def step(work: Path, _: Store) -> None:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).symlink_to(target)

    return step


def fifo(path: str) -> Step:
    """A named pipe, at which a reader waits for ever."""

    def step(work: Path, _: Store) -> None:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(work / path)

    return step


def checkpoint(path: str, change: Callable[[dict[str, Any]], Any]) -> Step:
    """A checkpoint that loads, and whose content `change` has changed in place or returns anew."""

    def step(work: Path, _: Store) -> None:
        import torch  # here, because it takes a second

        content = torch.load(work / path, weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, work / path)

    return step


def node(where: str, value: Any = ...) -> Callable[[dict[str, Any]], None]:
    """Changes the node `where`, keys and positions between slashes, to `value`; without one removes it."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = (int(key) if key.isdecimal() else key for key in where.split("/"))
        at: Any = content
        for key in parents:
            at = at[key]
        if value is ...:
            del at[last]
        else:
            at[last] = value

    return change


def picture(number: int, size: tuple[int, int] = (24, 20), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture of its own colours, encoded."""
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A black picture of side × side pixels in a few kilobytes."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def images(folders: Mapping[str, int], first: int = 0) -> Step:
    """So many pictures in each folder, all different."""

    def step(work: Path, store: Store) -> None:
        number = first
        for path, count in folders.items():
            for index in range(count):
                put(f"{path}/{index:03}.png", picture(number))(work, store)
                number += 1

    return step
