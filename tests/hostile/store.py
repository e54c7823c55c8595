"""Good runs, studies and files that cases copy and damage; each is made once, by the project's own commands."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

from tests.hostile.case import TINY, drawing, run

ROOT = Path(__file__).resolve().parents[2]
STUDY = f"""\
question: Does the window matter?
objectives: [{{metric: test/accuracy}}]
seeds: 2
overrides: [{", ".join(TINY)}]
blocks:
  - name: window
    factors:
      size: {{key: mixer.size, levels: [3, 5]}}
"""
_COMMANDS = {
    "run": run("hydra.run.dir=run", "logger=tensorboard", "trainer.save_every=1"),
    "half": run("hydra.run.dir=half", "trainer.max_steps=2"),
    "drawing": drawing("hydra.run.dir=drawing", "trainer.test=false"),
    "study": "-m ablations study=window.yaml study.dir=study study.name=window",
    "model.safetensors": "-m tasks.export run/checkpoints/best.ckpt model.safetensors",
}
_NEEDS = {"model.safetensors": ("run",)}


class Store:
    """A folder of good things by name.

    Attributes:
        root: the folder; what is in it already is used as it is.
        cache: of compiled kernels, shared by all cases.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.cache = root, root / "cache"
        self.cache.mkdir(parents=True, exist_ok=True)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._turn = threading.Lock()

    def get(self, name: str) -> Path:
        """The path of a good thing, made now if it has not been.

        Raises:
            RuntimeError: the project cannot make it.
        """
        with self._turn:
            lock = self._locks[name]
        with lock:
            path = self.root / name
            if not path.exists():
                self._make(name)
        return path

    def _make(self, name: str) -> None:
        place = self.root / "making" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "window.yaml").write_text(STUDY)
        for need in _NEEDS.get(name, ()):
            (place / need).symlink_to(self.get(need))
        command = [str(ROOT / word) if word == "run.py" else word for word in shlex.split(_COMMANDS[name])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.cache)}
        done = subprocess.run(
            [sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name} cannot be made by {_COMMANDS[name]}: {done.stderr[-2000:]}")
        # Under its name only when it is complete.
        (place / name).rename(self.root / name)
