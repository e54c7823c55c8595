"""The switches of the shell, and its presets; `operators.shell.shell` builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from operators.errors import InputError, check_choice, check_names, check_number

GATES = ("silu", "linear", "none")
NORMS = ("rms", "layer", "none")
CONVS = (0, 3, 5, 7)


@dataclass(frozen=True)
class ShellSpec:
    """Switches of the shell. The defaults are the `common` shell.

    Attributes:
        expand: inner width D over the model width C.
        gate: `silu` multiplies the core's output by SiLU(z), z a second projection of the input, `linear` by z
            itself; `none` does not.
        conv: side of a depthwise convolution before the core, zero-padded and followed by SiLU; 0 for none.
        conv_bias: whether that convolution has a bias.
        norm: normalisation of the core's output over channels: `rms`, `layer` or `none`.
        bias: whether W_in and W_out have a bias.
        project: False removes W_in, W_out and the gate: the core acts on the input itself.
    """

    expand: float = 1
    gate: str = "silu"
    conv: int = 0
    conv_bias: bool = True
    norm: str = "rms"
    bias: bool = False
    project: bool = True

    def __post_init__(self) -> None:
        check_number("shell.expand", self.expand, least=0.0625, most=64)
        check_choice("shell.gate", self.gate, GATES)
        check_choice("shell.conv", self.conv, CONVS)
        check_choice("shell.norm", self.norm, NORMS)
        for name in ("conv_bias", "bias", "project"):
            check_choice(f"shell.{name}", getattr(self, name), (True, False))
        if not self.project and (self.gate != "none" or self.expand != 1):
            raise InputError("shell.project=False needs shell.gate='none' and shell.expand=1: there is no W_in")


COMMON = ShellSpec()
BARE = ShellSpec(gate="none", norm="none", project=False)


def resolve(shell: str | ShellSpec | Mapping[str, Any], presets: Mapping[str, ShellSpec], mixer: str) -> ShellSpec:
    """The `ShellSpec` meant by a preset's name, a spec, or a mapping of a preset's `name` and overrides (None: keep).

    Raises:
        InputError: unknown preset, switch or value.
    """
    if isinstance(shell, ShellSpec):
        return shell
    switches: dict[str, Any] = dict(shell) if isinstance(shell, Mapping) else {"name": shell}
    name = switches.pop("name", "common")
    check_names("shell", switches, [field.name for field in fields(ShellSpec)])
    allowed = {"common": COMMON, **presets}
    if name == "published" and name not in allowed:
        listed = ", ".join(allowed)
        raise InputError(f"shell='published' does not exist for {mixer} (not public); allowed are {listed}")
    check_choice("shell", name, allowed)
    return replace(allowed[name], **{key: value for key, value in switches.items() if value is not None})
