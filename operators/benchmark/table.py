"""Rows of results and the CSV file that they are kept in."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from operators.errors import InputError

PACKAGE = Path(__file__).parents[1]
"""The folder of `operators`."""


@dataclass(frozen=True)
class Row:
    """One arm, one shape, one kind of work: what was measured, of what, where and how.

    Times are seconds per call (median and quartiles over samples), memory and traffic bytes, rates per second.

    Attributes:
        run: one interleaved measurement; times of two arms may be divided only where this is the same.
        reference, ratio, ratio_low, ratio_high: the arm's time over that of the reference arm, median and quartiles of
            the ratios of samples of the same round; None without a reference.
        code: digest of the sources, see `code_digest`.
        error: of the gate (see `operators.benchmark.gate`); None for arms that have no gate.
        share: of the roofline (see `operators.benchmark.measuring.roofline`).
    """

    run: str
    utc: str
    hardware: str
    device: str
    threads: int
    python: str
    torch: str
    code: str
    level: str
    arm: str
    kind: str
    backend: str
    dtype: str
    work: str
    batch: int
    height: int
    width: int
    dim: int
    repeats: int
    samples: int
    calls: int
    seconds: float
    seconds_low: float
    seconds_high: float
    peak_bytes: int
    flops: float
    traffic_bytes: int
    product_rate: float
    copy_bandwidth: float
    share: float
    reference: str | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    error: float | None

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.height * self.width

    @property
    def grid(self) -> str:
        """Height and width in words."""
        return f"{self.height}x{self.width}"


KEY = (
    "hardware", "device", "threads", "python", "torch", "code", "level", "arm", "dtype", "work", "batch", "height",
    "width", "dim", "repeats", "reference",
)  # fmt: skip
"""Columns that say what was measured and how; there is one row for each combination."""
COLUMNS = tuple(field.name for field in fields(Row))
_TYPES = {field.name: str(field.type).split(" | ") for field in fields(Row)}


def key(row: Row) -> tuple[Any, ...]:
    """What the row is about."""
    return tuple(getattr(row, name) for name in KEY)


class TimingTable:
    """A CSV file that grows row by row; what was cut off by a kill in the middle of a row is dropped.

    Raises:
        InputError: the file is not such a table, or cannot be read or written; says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path.read_bytes() if path.exists() else b""
            complete = whole[: whole.rfind(b"\n") + 1]
            if not complete:
                complete = _line(COLUMNS)
            if complete != whole:
                path.write_bytes(complete)
        except OSError as error:
            raise InputError(f"out: {path} cannot be used: {error.strerror}") from error
        header, *lines = csv.reader(io.StringIO(complete.decode(errors="replace"), newline=""))
        if tuple(header) != COLUMNS:
            raise InputError(f"out: {path} is not a table of this benchmark (its columns differ); choose another --out")
        for number, line in enumerate(lines, start=2):
            self.rows.append(_parse(line, f"{path}, line {number}"))

    def append(self, row: Row) -> None:
        """Add a row, on disk too."""
        with self.path.open("ab") as file:
            file.write(_line(["" if value is None else value for value in asdict(row).values()]))
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


def _line(values: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _parse(line: list[str], where: str) -> Row:
    kinds = {"str": str, "int": int, "float": float}
    if len(line) != len(COLUMNS):
        raise InputError(f"out: {where} has {len(line)} entries instead of {len(COLUMNS)}")
    values: dict[str, Any] = {}
    for name, text in zip(COLUMNS, line, strict=True):
        kind, *optional = _TYPES[name]
        try:
            values[name] = None if optional and not text else kinds[kind](text)
        except ValueError as error:
            raise InputError(f"out: {where} has {name}={text!r}, which is no {kind}") from error
    return Row(**values)


def hardware_name(device: str) -> str:
    """Name of the processor or GPU, in letters, digits and hyphens."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def code_digest(packages: Sequence[Path] = (PACKAGE,)) -> str:
    """Ten hexadecimal digits that change with any source file in these folders."""
    digest = hashlib.sha256()
    for root in packages:
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]
