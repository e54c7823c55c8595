"""Starting a case: its folders, its process, and what both look like at the end."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.hostile.case import OK, Case
from tests.hostile.judge import CROWD, Outcome
from tests.hostile.store import Store

ROOT = Path(__file__).resolve().parents[2]
DATA_LIMIT = 8 * 2**30
"""Bytes that a process may allocate: what goes wild ends before the machine does."""
_TAG = "HOSTILE_CASE"
_SHOWN = 1_000_000
_GRACE = 3.0


def start(case: Case, scratch: Path, store: Store) -> Outcome:
    """Carry out a case in the new folder `scratch`, which is removed afterwards."""
    work = scratch / "outer" / "inner" / "work"
    for folder in (work, scratch / "home", scratch / "tmp"):
        folder.mkdir(parents=True)
    try:
        for step in case.make:
            step(work, store)
        before = digests(work)
        outcome = _run(case, scratch, work, store, before)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return outcome


def _run(case: Case, scratch: Path, work: Path, store: Store, before: dict[str, str]) -> Outcome:
    environment = _environment(case, scratch, work, store)
    out, err = scratch / "tmp.stdout", scratch / "tmp.stderr"
    began = time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            words(case, work),
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        status, memory, crowd = _wait(process, began + case.seconds, scratch)
    seconds = time.monotonic() - began
    left = () if status is None else _left(scratch)
    for pid in _members(scratch):
        _kill(pid)
    texts = [path.read_bytes()[:_SHOWN].decode(errors="replace") for path in (out, err)]
    fact = case.check(work) if case.check is not None and status == OK else ""
    return Outcome(
        status,
        *texts,
        before=before,
        after=digests(work),
        outside=_outside(scratch, work),
        left=left,
        seconds=seconds,
        memory=memory,
        crowd=crowd,
        leaks=_leaks(case, work, before),
        fact=fact,
    )


def words(case: Case, work: Path) -> list[str]:
    """The command, with the limits before it."""
    given = shlex.split(case.command.replace("{work}", str(work)))
    command = [sys.executable, *(str(ROOT / word) if word == "run.py" else word for word in given)]
    limits = [*case.limits, *([] if any(o.startswith("data=") for o in case.limits) else [f"data={DATA_LIMIT}"])]
    command = ["prlimit", *(f"--{limit}" for limit in limits), *command]
    if case.mount:
        script = f'mount -t tmpfs -o size={case.mount} tmpfs /dev/shm && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
    return ["sh", "-c", f'"$@" {case.redirect}', "sh", *command] if case.redirect else command


def _environment(case: Case, scratch: Path, work: Path, store: Store) -> dict[str, str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GOMP_SPINCOUNT": "1000",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # a limit on the size of files would leave the project's own cut off
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "XDG_CACHE_HOME": str(store.cache),
        _TAG: str(scratch),
    }
    for name, value in case.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.replace("{work}", str(work)).replace("{root}", str(ROOT))
    return environment


def _wait(process: subprocess.Popen[bytes], end: float, scratch: Path) -> tuple[int | None, int, int]:
    """Exit status, None where it was stopped; the largest resident set, bytes; and the largest number of processes.

    Stopped is what lasts beyond `end`, or has more than `CROWD` processes: the machine would not last.
    """
    crowd, turns = 1, 0
    while time.monotonic() < end and crowd <= CROWD:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_maxrss * 1024, crowd
        turns += 1
        if turns % 20 == 0:
            crowd = max(crowd, len(_members(scratch)))
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = -signal.SIGKILL
    return None, usage.ru_maxrss * 1024, crowd


def _left(scratch: Path) -> tuple[str, ...]:
    """Commands of the case's processes that do not end by themselves within a few seconds."""
    end = time.monotonic() + _GRACE
    while (members := _members(scratch)) and time.monotonic() < end:
        time.sleep(0.1)
    return tuple(" ".join(command.split("\0"))[:100] for command in members.values())


def _members(scratch: Path) -> dict[int, str]:
    """Processes of the case, whoever their parents are now."""
    tag = f"{_TAG}={scratch}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if tag in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except (OSError, UnicodeDecodeError):  # it has ended meanwhile, or is another user's
            continue
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def digests(work: Path) -> dict[str, str]:
    """SHA-256 of every file, by relative path; of a link, where it points."""
    result = {}
    for folder, folders, files in os.walk(work):
        for name in [*files, *(name for name in folders if Path(folder, name).is_symlink())]:
            path = Path(folder, name)
            if path.is_symlink():
                content = os.fsencode(os.readlink(path))
            elif path.is_file():
                content = path.read_bytes()
            else:
                content = b"special"
            result[str(path.relative_to(work))] = hashlib.sha256(content).hexdigest()
    return result


def _outside(scratch: Path, work: Path) -> tuple[str, ...]:
    """Entries around the working directory that `start` has not made."""
    own = {work, work.parent, work.parent.parent, *(scratch / name for name in ("home", "tmp"))}
    own |= {scratch / "tmp.stdout", scratch / "tmp.stderr"}
    around = [*scratch.iterdir(), *work.parent.parent.iterdir(), *work.parent.iterdir()]
    return tuple(str(path.relative_to(scratch)) for path in around if path not in own)


def _leaks(case: Case, work: Path, before: dict[str, str]) -> tuple[str, ...]:
    if not case.secret:
        return ()
    new = [path for path in work.rglob("*") if path.is_file() and str(path.relative_to(work)) not in before]
    return tuple(str(path.relative_to(work)) for path in new if case.secret.encode() in path.read_bytes())
