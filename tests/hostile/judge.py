"""What is wrong with the answer to a hostile case."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.hostile.case import OK, REFUSED, Case

MEMORY = 3 * 2**30
"""Bytes of memory that no command needs here."""
CROWD = 40
"""Processes that no command needs here."""
_WARNING = re.compile(r"warning: |compiling kernels for this processor")
_DUMPS = {
    "traceback": re.compile(r"Traceback \(most recent call last\)|^\s+File \".*\", line \d+", re.MULTILINE),
    "class of an error": re.compile(r"^(?:\w+\.)*_?[A-Z]\w*(?:Error|Exception|Interrupt)\b(?::|$)", re.MULTILINE),
    "crash": re.compile(
        r"Exception ignored in|Fatal Python error|Segmentation fault|terminate called|leaked \w+ objects"
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        status: exit status, or minus the signal that ended it; None where it was stopped for lasting too long.
        before, after: digests of the files in the working directory, by relative path.
        outside: paths that appeared beside the working directory.
        left: command lines of processes that were still there after its end.
        memory: largest resident set of its processes, bytes.
        crowd: largest number of its processes.
        leaks: files that hold the case's secret.
        fact: what the case's own check finds wrong.
    """

    status: int | None
    stdout: str = ""
    stderr: str = ""
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    seconds: float = 0.0
    memory: int = 0
    crowd: int = 1
    leaks: tuple[str, ...] = ()
    fact: str = ""


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong, a line each; nothing where the answer is good."""
    lines = []
    if outcome.crowd > CROWD:
        lines.append(f"started {outcome.crowd} processes")
    elif outcome.status is None:
        lines.append(f"hang: still running after {case.seconds:g} s")
    elif outcome.status not in case.allowed:
        lines.append(f"exit status {outcome.status}, allowed {', '.join(map(str, case.allowed))}")
    output = f"{outcome.stderr}\n{outcome.stdout}"
    if not case.traces:
        lines += [f"{what}: {excerpt(output, match)}" for what, of in _DUMPS.items() if (match := of.search(output))]
        lines += _message(case, outcome)
    elif case.traces not in output:
        lines.append(f"no traceback that leads to {case.traces}")
    lines += _files(case, outcome)
    if case.says and not re.search(case.says, output):
        lines.append(f"the output does not say {case.says!r}")
    if case.secret and case.secret in output:
        lines.append("leak: the output holds the secret")
    lines += [f"leak: {path} holds the secret" for path in outcome.leaks]
    lines += [f"left a process running: {command}" for command in outcome.left]
    if outcome.memory > MEMORY:
        lines.append(f"took {outcome.memory / 2**30:.1f} GiB of memory")
    if outcome.fact:
        lines.append(f"wrong result: {outcome.fact}")
    return lines


def excerpt(output: str, match: re.Match[str]) -> str:
    """The last line of the traceback that begins at `match`, or its own line."""
    rest = output[match.start() :].splitlines()
    heads = [line for line in rest if re.match(r"(?:\w+\.)*_?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b", line)]
    return (heads[0] if heads else rest[0]).strip()[:200]


def message(stderr: str) -> list[str]:
    """Lines on standard error that are no warnings of the program."""
    shown = [line.rpartition("\r")[2] for line in stderr.splitlines()]
    return [line for line in shown if line.strip() and not _WARNING.match(line)]


def _message(case: Case, outcome: Outcome) -> list[str]:
    if outcome.status in (None, OK) or case.redirect:
        return []
    lines = message(outcome.stderr)
    if not lines:
        return ["no message on standard error"]
    if len(lines) > case.lines:
        return [f"{len(lines)} lines on standard error: {lines[0].strip()[:150]} …"]
    if outcome.status == REFUSED and len(lines[-1]) > 2000:
        return [f"a line of {len(lines[-1])} characters"]
    return []


def _files(case: Case, outcome: Outcome) -> list[str]:
    lines = []
    kept = set(outcome.after.values())
    for path, digest in outcome.before.items():
        if _matches(path, case.changes) or outcome.after.get(path) == digest:
            continue
        if not _matches(path, case.moves):
            lines.append(f"loss: {path} is {'changed' if path in outcome.after else 'gone'}")
        elif digest not in kept:
            lines.append(f"loss: the content of {path} is gone")
    new = [path for path in outcome.after.keys() - outcome.before.keys() if not _matches(path, case.changes)]
    if outcome.status == REFUSED:
        lines += [f"left {path} behind" for path in sorted(new)[:3] if not path.startswith("outputs/")]
    return lines + [f"wrote outside its directory: {path}" for path in outcome.outside]


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
