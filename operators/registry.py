"""Which mixers there are: their cards, how to find them, how to make one."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from operators import catalogue, value_types
from operators.card import MixerCard
from operators.errors import InputError, check_choice, check_names, check_number
from operators.shell.spec import ShellSpec, resolve

if TYPE_CHECKING:
    from operators.mixer import Core, Mixer

ENTRY_POINTS = "operator_zoo.mixers"

_cores: dict[str, type[Core]] = {}
_broken: dict[str, str] = {}
_loaded = False
_underway = False
_loading = threading.RLock()


C = TypeVar("C", bound="type[Core]")


def register(card: MixerCard) -> Callable[[C], C]:
    """Class decorator that enters a `Core` into the registry under `card.name`.

    The core's keyword-only constructor parameters, `backend` apart, become `card.defaults`.

    Raises:
        InputError: another core already has that name; a parameter has no default, or one that no configuration can
            hold.
    """

    def enter(core: C) -> C:
        home = (core.__module__, core.__qualname__)
        own, entered = catalogue.entries().get(card.name), _cores.get(card.name)
        taken = (own.module, own.core) if own is not None else home
        if own is None and entered is not None:
            taken = (entered.__module__, entered.__qualname__)
        if taken != home:
            raise InputError(f"mixer {card.name!r} is registered twice: by {taken[0]} and {core.__module__}")
        parameters = inspect.signature(core).parameters.values()
        defaults = {
            p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "backend"
        }
        odd = next((key for key, value in defaults.items() if not _is_plain(value)), None)
        if odd is not None:
            raise InputError(
                f"mixer {card.name!r}: {odd} needs a default that a configuration can hold: null, a number, a text, or "
                "a list or mapping of these"
            )
        core.card = replace(card, defaults=defaults)
        _cores[card.name] = core
        return core

    return enter


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def _load() -> None:
    """Import every installed entry point, once; the zoo's own modules are imported when they are asked for."""
    global _loaded, _underway
    if _loaded:
        return
    with _loading:
        # Underway in this very thread: a stranger's package asks for names while it is being imported.
        if _loaded or _underway:
            return
        _underway = True
        try:
            _load_entry_points()
        finally:
            _underway = False
        _loaded = True


def _load_entry_points() -> None:
    try:
        points = list(entry_points(group=ENTRY_POINTS))
    except Exception as error:  # noqa: BLE001 - raised for an entry of any package that is malformed
        _broken["entry points"] = f"those that are installed cannot be read: {type(error).__name__}: {error}"
        return
    for point in points:
        try:
            point.load()
        except Exception as error:  # noqa: BLE001 - a stranger's package may fail in any way; the zoo names it and goes on
            _broken[point.name] = f"{type(error).__name__}: {error}"


def core_class(name: str) -> type[Core]:
    """The core registered under `name`.

    Raises:
        InputError: no such mixer (names the nearest), or its entry point failed to load (says why).
    """
    own = catalogue.entries().get(name)
    if own is not None:
        core: type[Core] = getattr(importlib.import_module(own.module), own.core)
        return core
    _load()
    if name in _broken and name not in _cores:
        raise InputError(f"mixer {name!r} is installed but does not load: {_broken[name]}")
    return _cores[check_choice("mixer", name, names())]


def names(**properties: Any) -> list[str]:
    """Names of the registered mixers, sorted; of those alone whose cards have all `properties`.

    `names(family="scan")` and `names(linear=True, fixed_grid=False)` take any attribute of a `MixerCard`; a mixer of
    the zoo's own is not imported for that.

    Raises:
        InputError: a property that cards do not have.
    """
    _load()
    cards = {name: core.card for name, core in _cores.items()}
    cards |= {name: entry.card for name, entry in catalogue.entries().items()}
    check_names("a mixer's card", properties, [field.name for field in fields(MixerCard)])
    wanted = properties.items()
    return sorted(name for name, card in cards.items() if all(getattr(card, key) == value for key, value in wanted))


def check(name: str, params: Mapping[str, Any], shell: str | ShellSpec | Mapping[str, Any], backend: str) -> None:
    """Raise `InputError` for arguments of `create` that cannot be, whatever the width and the grid.

    The zoo's own mixers are read, not imported (see `operators.catalogue`): this takes no torch. Of an installed
    package's mixer, only the name is checked.
    """
    entry = catalogue.entries().get(name)
    if entry is None:
        core_class(name)
        return
    card = entry.card
    check_names(f"mixer {name}", params, card.defaults)
    check_choice(f"backend of {name}", backend, ("auto", *card.backends))
    resolve(shell, card.shells, name)
    if card.check is not None:
        card.check(backend=backend, **{**card.defaults, **params})
    for key, value in params.items():
        value_types.check(f"mixer {name}: {key}", value, entry.parameters[key])


def defaults(name: str) -> Mapping[str, Any]:
    """The parameters of mixer `name` and their defaults; of the zoo's own without torch. Raises as `describe`."""
    entry = catalogue.entries().get(name)
    return describe(name).defaults if entry is None else entry.card.defaults


def describe(name: str) -> MixerCard:
    """The card of mixer `name`. Raises `InputError` for an unknown name."""
    return core_class(name).card


def broken() -> dict[str, str]:
    """Entry points that failed to load, each with its reason."""
    _load()
    return dict(_broken)


def create(
    name: str,
    dim: int,
    *,
    grid: tuple[int, ...] | None = None,
    axes: int | None = None,
    cond_dim: int | None = None,
    shell: str | ShellSpec | Mapping[str, Any] = "common",
    backend: str = "auto",
    block_index: int = 0,
    **params: Any,
) -> Mixer:
    """Make a mixer: a core in a shell.

    Args:
        name: one of `names()`.
        dim: channels C of its input and output.
        grid: nominal (H, W), or (T, H, W) of a video: scales initialisation; required by mixers whose card says
            `fixed_grid`.
        axes: of the grids to serve, 2 or 3 (videos, for mixers whose card has it); those of `grid` unless given.
        cond_dim: width of the conditioning vector `cond`, for mixers that take one.
        shell: a preset's name (`common`, or one on the card), a `ShellSpec`, or `{"name": preset, switch: value, …}`.
        backend: `auto`, or one of the card's backends.
        block_index: how many blocks with this mixer come before in its stage of a trunk; for those that alternate.
        params: the mixer's own parameters (`describe(name).defaults`).

    Raises:
        InputError: anything unknown or impossible, in one line with the nearest valid name.
    """
    from operators.mixer import Mixer

    core = core_class(name)
    check_number("dim", dim, least=1, integer=True)
    check_number("block_index", block_index, least=0, integer=True)
    check_names(f"mixer {name}", params, core.card.defaults)
    check_choice(f"backend of {name}", backend, ("auto", *core.card.backends))
    if grid is not None:
        if len(grid) not in (2, 3) or not all(isinstance(side, int) and side >= 1 for side in grid):
            raise InputError(f"grid={grid!r} must be two positive integers, (H, W), or three of a video, (T, H, W)")
        grid = tuple(grid)
    elif core.card.fixed_grid:
        raise InputError(f"mixer {name} depends on the grid: give grid=(H, W)")
    axes = (2 if grid is None else len(grid)) if axes is None else axes
    if axes not in core.card.axes:
        allowed = " or ".join(map(str, core.card.axes))
        raise InputError(
            f"mixer {name} serves grids of {allowed} axes, not {axes}: its card says axes={core.card.axes}"
        )
    if grid is not None and axes != len(grid):
        raise InputError(f"grid={grid!r} has {len(grid)} axes, not axes={axes}")
    spec = resolve(shell, core.card.shells, name)
    preset = shell.get("name") if isinstance(shell, Mapping) else shell
    meant = core.card.preset_params.get(preset, {}) if isinstance(preset, str) else {}
    params.update({key: value for key, value in meant.items() if params.get(key) is None})
    signature = inspect.signature(core).parameters
    params = {key: value_types.as_annotated(value, signature[key].annotation) for key, value in params.items()}
    try:
        mixer = Mixer(
            core,
            spec,
            dim=dim,
            grid=grid,
            axes=axes,
            cond_dim=cond_dim,
            backend=backend,
            params=params,
            block_index=block_index,
        )
    except InputError:
        raise  # the constructor's own words say more
    except Exception:
        _check_types(core, params)
        raise
    _check_types(core, params)
    return mixer


def _check_types(core: type[Core], params: Mapping[str, Any]) -> None:
    """Raise `InputError` for the first of `params` that its annotation does not allow."""
    signature = inspect.signature(core.__init__).parameters
    for key, value in params.items():
        if key in signature:
            value_types.check(f"mixer {core.card.name}: {key}", value, signature[key].annotation)
