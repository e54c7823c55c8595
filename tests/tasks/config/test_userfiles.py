from __future__ import annotations

from pathlib import Path

import pytest

import run
from operators import InputError
from tasks.config import userfiles

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)
BAD = {
    "bomb": (BOMB.encode(), r"has [\d,]+ values once its aliases are written out: at most 100,000 are read"),
    "deep": (b"a: " + b"[" * 3000 + b"]" * 3000, "has more than 50 levels, or one that holds itself"),
    "itself": (b"a: &a [*a]", "has more than 50 levels, or one that holds itself"),
    "binary": (bytes(range(256)), "is not readable as YAML"),
    "torn": (b"a: [1,", "is not readable as YAML"),
    "large": (b"#" * 2**21, "is larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_file_that_nobody_can_read_is_named_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, line = BAD[name]
    (tmp_path / "mixer").mkdir()
    path = tmp_path / "mixer" / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=line):
        userfiles.check([str(tmp_path)])
    assert run.main([f"--config-dir={tmp_path}", "mixer=mine"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {path} ")
    assert errors.count("\n") == 1


def test_aliases_are_welcome(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("a: &a {x: 1, y: [1, 2]}\nb: [*a, *a]\nc: *a\n")
    userfiles.check([str(tmp_path), str(tmp_path / "nowhere")])


def test_files_on_the_search_path_are_looked_at_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMB)
    assert run.main([f"hydra.searchpath=[file://{tmp_path}]"]) == 2
    assert "bomb.yaml has" in capsys.readouterr().err
