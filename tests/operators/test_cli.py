import subprocess
import sys

import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

import operators
from operators import __main__ as cli
from operators import registry, response


@pytest.fixture
def show(capsys, monkeypatch):
    """Runs the command line at a width; returns the exit status, the output and the errors."""

    def run(*argv, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        status = cli.main(argv)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_every_mixer_is_listed_with_whole_words(show, columns):
    status, out, err = show(columns=columns)
    assert (status, err) == (0, "")
    assert max(len(line) for line in out.splitlines()) <= columns
    assert "…" not in out
    words = set(out.replace(",", " ").split())
    for name in operators.names():
        card = operators.describe(name)
        assert name in words
        assert set(card.title.replace(",", " ").split()) <= words
        assert set(cli.properties(card).replace(",", " ").split()) <= words
        assert f"({card.year})" in words


def test_costs_are_those_of_the_example(show):
    _, out, _ = show(columns=120)
    row = next(line for line in out.splitlines() if line.split()[:1] == ["attention"] and "sdpa" in line)
    tokens, dim = 14 * 14, 192
    parameters = 3 * dim**2 + 2 * dim**2 + 2 * dim + dim  # gated W_in and W_out, q and k with bias, RMSNorm
    expected = [5 * tokens * dim**2, 2 * tokens**2 * dim, 2 * tokens * dim, parameters]
    assert row.split()[1:5] == [cli.short_number(number) for number in expected]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (75264, "75.3k"), (28901376, "28.9M"), (4.2e9, "4.2G")]
)
def test_short_numbers(number, text):
    assert cli.short_number(number) == text


def test_backends_out_of_service_are_listed_with_their_reason(show, monkeypatch):
    attention = registry.core_class("attention")
    monkeypatch.setattr(attention, "availability", classmethod(lambda cls: {"xformers": "too [old]", "sdpa": None}))
    _, out, _ = show(columns=120)
    assert "attention backend xformers: too [old]" in " ".join(out.split())
    assert (
        next(line for line in out.splitlines() if line.startswith(" attention") and "M" in line).split()[-1] == "sdpa"
    )
    _, out, _ = show("describe", "attention")
    assert "xformers: too [old]" in out


def test_broken_entry_points_are_listed_with_their_reason(show, monkeypatch):
    operators.names()
    monkeypatch.setitem(registry._broken, "third_party", "ImportError: no such thing")
    _, out, _ = show(columns=120)
    assert "third_party installed, but does not load: ImportError: no such thing" in " ".join(out.split())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (operators.InputError("not for this grid"), "not for this grid"),
        (ZeroDivisionError("of a stranger"), "ZeroDivisionError: of a stranger"),
    ],
)
def test_a_mixer_that_cannot_be_made_for_the_example_says_so(show, monkeypatch, error, reason):
    create = registry.create

    def refuse(name, *args, **kwargs):
        if name == "pool":
            raise error
        return create(name, *args, **kwargs)

    monkeypatch.setattr(registry, "create", refuse)
    status, out, _ = show(columns=120)
    assert status == 0
    assert f"pool no cost for the example: {reason}" in " ".join(out.split())


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", operators.names())
def test_a_card_is_shown_whole(show, name, columns):
    status, out, err = show("describe", name, columns=columns)
    card = operators.describe(name)
    assert (status, err) == (0, "")
    assert max(map(cell_len, out.splitlines())) <= columns
    words = set(out.split())
    for text in (card.title, card.equation, card.source, *(number.model for number in card.published)):
        assert set(text.split()) <= words, text
    for parameter, default in card.defaults.items():
        assert parameter in words
        assert set(cli.as_written(default).split()) <= words
    for shell in card.shells:
        assert shell in words
    for number in card.published:
        assert f"{number.value:g}" in words
        assert set(number.source.split()) <= words


def test_switches_of_each_shell_are_shown(show):
    _, out, _ = show("describe", "attention")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if len(line.split()) == 3}
    assert rows["switch"] == ["common", "published"]
    assert rows["gate"] == ["silu", "none"]
    assert rows["bias"] == ["false", "true"]


def test_unknown_mixer_is_one_line_on_standard_error(show):
    status, out, err = show("describe", "attension")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "did you mean 'attention'?" in err


@pytest.mark.slow
@pytest.mark.parametrize(("argv", "status"), [((), 0), (("describe", "pool"), 0), (("describe", "pol"), 2)], ids=str)
def test_runs_as_a_module_into_a_pipe(argv, status):
    done = subprocess.run([sys.executable, "-m", "operators", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("pool" in done.stdout) == (status == 0)
    assert done.stderr.count("\n") == (0 if status == 0 else 1), done.stderr


@pytest.mark.parametrize("argv", [["list"], ["describe"], ["describe", "pool", "--full"]])
def test_a_wrong_command_line_is_one_line(show, argv):
    status, out, err = show(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", operators.names())
def test_every_parameter_says_what_it_is(show, name):
    core = registry.core_class(name)
    meant = cli.meanings(core)
    assert core.card.defaults.keys() <= meant.keys()
    _, out, _ = show("describe", name, columns=1000)
    lines = [line.split() for line in out.splitlines()]
    for parameter, default in core.card.defaults.items():
        row = [cli.as_written(default), cli.allowed_values(name, parameter), meant[parameter]]
        assert [parameter, *" ".join(row).split()] in lines


@pytest.mark.parametrize(
    ("name", "parameter", "words"),
    [
        (
            "pde_ssm",
            "boundary",
            "one of periodic, neumann, dirichlet, absorbing, or two of them: [row axis, column axis]",
        ),
        ("pde_ssm", "terms", "convection, diffusion, reaction"),
        ("pde_ssm", "groups", "an integer >= 1"),
        ("attention", "qk_norm", "true, false"),
        ("attention", "heads", "an integer >= 1, or null"),
        ("pom", "clamp", "two numbers [low, high], low < high, or null"),
        ("mamba", "order", "row, col, snake_row"),
    ],
)
def test_allowed_values_are_those_of_the_refusal(name, parameter, words):
    assert cli.allowed_values(name, parameter).startswith(words)


def test_a_mixer_that_refuses_nothing_is_described_by_its_annotations(monkeypatch):
    monkeypatch.setattr(registry, "create", lambda *_, **__: None)
    assert cli.allowed_values("attention", "heads") == "an integer or null"
    assert cli.allowed_values("ss2d", "orders") == "a list whose entries are each a text"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (("row", "col"), "[row, col]"), ([0.5, None], "[0.5, null]")]
)
def test_defaults_are_written_as_the_command_line_takes_them(value, text):
    assert cli.as_written(value) == text


def test_the_kernel_is_drawn_in_the_terminal(show):
    _, out, _ = show("describe", "pool")
    assert "██" in out
    drawn = out.splitlines()[-response.GRID[0] :]
    assert [line.count("█") for line in drawn[6:9]] == [0, 2, 0]
    assert all(not line.strip() for line in (*drawn[:6], *drawn[9:]))
    assert "root mean square over 64 channels" in " ".join(out.split())


def test_an_output_without_unicode_gets_letters(show, monkeypatch):
    monkeypatch.setattr(Console, "encoding", "ascii")
    _, out, _ = show("describe", "pool")
    assert "@@" in out
    assert "█" not in out


def test_the_kernel_is_drawn_into_a_file(show, tmp_path):
    path = tmp_path / "kernel.png"
    status, out, _ = show("describe", "conv", "--picture", str(path), columns=1000)
    assert status == 0
    assert out.splitlines()[-1] == f"picture: {path}"
    with Image.open(path) as picture:
        side = response.TILES * (response.GRID[0] * response.CELL + response.GAP)
        assert picture.size == (side, side)
        assert len(picture.getcolors(maxcolors=10**6)) > 20
    for wrong in (tmp_path / "none" / "kernel.png", tmp_path / "kernel.words"):
        status, _, err = show("describe", "identity", "--picture", str(wrong))
        assert status == 2
        assert err.startswith(f"error: --picture {wrong}: ")
        assert err.count("\n") == 1


def test_a_mixer_without_a_kernel_says_why(show, monkeypatch):
    def fail(name):
        raise ZeroDivisionError("of a stranger")

    monkeypatch.setattr(response, "respond", fail)
    status, out, _ = show("describe", "pool")
    assert status == 0
    assert "No kernel to draw: of a stranger" in out
    assert show("describe", "pool", "--picture", "kernel.png")[0] == 2


def test_without_a_terminal_no_table_is_cut(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert cli.main(["describe", "pde_ssm"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    (line,) = (line for line in lines if line.startswith("method auto auto, separable, compiled, "))
    assert line.endswith("each of them is `pointwise`.")
