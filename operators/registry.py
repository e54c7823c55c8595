"""Which mixers there are: their cards, how to find them, how to make one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from operators.errors import InputError, check_choice, check_names, check_number
from operators.shell import ShellSpec, resolve

if TYPE_CHECKING:
    from operators.mixer import Core, Mixer

ENTRY_POINTS = "operator_zoo.mixers"

_cores: dict[str, type[Core]] = {}
_broken: dict[str, str] = {}
_loaded = False


@dataclass(frozen=True)
class Published:
    """One published number: of which model, what, how much, read where."""

    model: str
    quantity: str
    value: float
    source: str


@dataclass(frozen=True)
class MixerCard:
    """What a mixer is and promises. Every property is verified by the contract tests, where claimed and where denied.

    The properties are those of the core alone (the bare shell), with default parameters.

    Attributes:
        name, title, source, year, equation: identity; `source` is the paper (arXiv number) and the equation or section.
        defaults: the mixer's own parameters and their defaults (read off the core's constructor).
        published: numbers the mixer's authors report, each with its source.
        shells: the mixer's shell presets besides `common` (`published` where the paper's dressing is known).
        preset_params: by shell preset, what the mixer's parameters that are None stand for in that preset.
        position_aware: the mixer knows where tokens are; False: the trunk must tell it.
        permutation_equivariant: permuting tokens permutes outputs.
        translation_equivariant: `circular` (wrapped shifts), `interior` (away from the border) or None.
        linear: linear in its input.
        causal_along: the scan order along which no output sees a later token, or None.
        fixed_grid: parameters or buffers depend on the grid, which must be given at construction and then met.
        extensive: the output's scale grows with the number of tokens.
        fp32_core: the core computes in float32 under autocast.
        min_grid: smallest height and width.
        backends: names `backend=` takes besides `auto`, best first.
        exempt: contract tests it is exempt from (`name`, or `name[shell preset]`), each with its reason.
    """

    name: str
    title: str
    source: str
    year: int
    equation: str
    position_aware: bool
    permutation_equivariant: bool
    translation_equivariant: Literal["circular", "interior"] | None
    linear: bool
    backends: tuple[str, ...]
    causal_along: str | None = None
    fixed_grid: bool = False
    extensive: bool = False
    fp32_core: bool = False
    min_grid: tuple[int, int] = (1, 1)
    published: tuple[Published, ...] = ()
    shells: Mapping[str, ShellSpec] = field(default_factory=dict)
    preset_params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


C = TypeVar("C", bound="type[Core]")


def register(card: MixerCard) -> Callable[[C], C]:
    """Class decorator that enters a `Core` into the registry under `card.name`.

    The core's keyword-only constructor parameters, `backend` apart, become `card.defaults`.

    Raises:
        InputError: another core already has that name.
    """

    def enter(core: C) -> C:
        taken = _cores.get(card.name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (core.__module__, core.__qualname__):
            raise InputError(f"mixer {card.name!r} is registered twice: by {taken.__module__} and {core.__module__}")
        parameters = inspect.signature(core).parameters.values()
        defaults = {
            p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "backend"
        }
        core.card = replace(card, defaults=defaults)
        _cores[card.name] = core
        return core

    return enter


def _load() -> None:
    """Import every module of the package (each registers its cores) and every installed entry point, once."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    package = importlib.import_module("operators")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"operators.{module.name}")
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:  # noqa: BLE001 - a stranger's package may fail in any way; the zoo names it and goes on
            _broken[point.name] = f"{type(error).__name__}: {error}"


def core_class(name: str) -> type[Core]:
    """The core registered under `name`.

    Raises:
        InputError: no such mixer (names the nearest), or its entry point failed to load (says why).
    """
    _load()
    if name in _broken and name not in _cores:
        raise InputError(f"mixer {name!r} is installed but does not load: {_broken[name]}")
    return _cores[check_choice("mixer", name, names())]


def names() -> list[str]:
    """Names of all registered mixers, sorted."""
    _load()
    return sorted(_cores)


def describe(name: str) -> MixerCard:
    """The card of mixer `name`. Raises `InputError` for an unknown name."""
    return core_class(name).card


def broken() -> dict[str, str]:
    """Entry points that failed to load, each with its reason."""
    _load()
    return dict(_broken)


@dataclass(frozen=True)
class Site:
    """Where a core stands.

    Attributes:
        dim: channels C of the mixer's input x.
        width: channels D of the value field u.
        grid: nominal (H, W), or None.
        cond_dim: width of the conditioning vector, or None.
    """

    dim: int
    width: int
    grid: tuple[int, int] | None = None
    cond_dim: int | None = None


def create(
    name: str,
    dim: int,
    *,
    grid: tuple[int, int] | None = None,
    cond_dim: int | None = None,
    shell: str | ShellSpec | Mapping[str, Any] = "common",
    backend: str = "auto",
    **params: Any,
) -> Mixer:
    """Make a mixer: a core in a shell.

    Args:
        name: one of `names()`.
        dim: channels C of its input and output.
        grid: nominal (H, W): scales initialisation; required by mixers whose card says `fixed_grid`.
        cond_dim: width of the conditioning vector `cond`, for mixers that take one.
        shell: a preset's name (`common`, or one on the card), a `ShellSpec`, or `{"name": preset, switch: value, …}`.
        backend: `auto`, or one of the card's backends.
        params: the mixer's own parameters (`describe(name).defaults`).

    Raises:
        InputError: anything unknown or impossible, in one line with the nearest valid name.
    """
    from operators.mixer import Mixer

    core = core_class(name)
    check_number("dim", dim, least=1, integer=True)
    check_names(f"mixer {name}", params, core.card.defaults)
    check_choice(f"backend of {name}", backend, ("auto", *core.card.backends))
    if grid is not None:
        if len(grid) != 2 or not all(isinstance(side, int) and side >= 1 for side in grid):
            raise InputError(f"grid={grid!r} must be two positive integers, (H, W)")
        grid = (grid[0], grid[1])
    elif core.card.fixed_grid:
        raise InputError(f"mixer {name} depends on the grid: give grid=(H, W)")
    spec = resolve(shell, core.card.shells, name)
    preset = shell.get("name") if isinstance(shell, Mapping) else shell
    meant = core.card.preset_params.get(preset, {}) if isinstance(preset, str) else {}
    params.update({key: value for key, value in meant.items() if params.get(key) is None})
    return Mixer(core, spec, dim=dim, grid=grid, cond_dim=cond_dim, backend=backend, params=params)
