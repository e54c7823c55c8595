"""The switches of the shell, and its presets; `operators.shell.shell` builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from operators.errors import InputError, check_choice, check_names, check_number

GATES = ("silu", "gelu", "sigmoid", "linear", "none")
NORMS = ("rms", "layer", "none")
CONVS = (0, 3, 5, 7)


@dataclass(frozen=True)
class ShellSpec:
    """Switches of the shell. The defaults are the `common` shell.

    What is said of a gate, a convolution or a norm means nothing where there is none.

    Attributes:
        expand: inner width D over the model width C; D is the nearest whole number.
        round_down: whether D is the next lower whole number instead.
        gate: `silu` multiplies the core's output by SiLU(z), z a second projection of the input, `gelu` by GELU(z),
            `sigmoid` by σ(z), `linear` by z itself; `none` does not.
        gate_rank: rank of z's projection, which then is the product of two maps; 0 for one map.
        conv: side of a depthwise convolution before the core, zero-padded and followed by SiLU; 0 for none.
        conv_bias: whether that convolution has a bias.
        conv_first: whether that convolution is of the input of W_in, for u and z, and without SiLU; the core's own maps
            read the input as it is.
        norm: normalisation of the core's output over channels: `rms`, `layer` or `none`.
        norm_heads: whether each head of the core is normalised by itself, with one weight for all.
        norm_after_gate: whether the norm is of the gated output.
        bias: whether W_in and W_out have a bias.
        project: False removes W_in, W_out and the gate: the core acts on the input itself.
    """

    expand: float = 1
    round_down: bool = False
    gate: str = "silu"
    gate_rank: int = 0
    conv: int = 0
    conv_bias: bool = True
    conv_first: bool = False
    norm: str = "rms"
    norm_heads: bool = False
    norm_after_gate: bool = False
    bias: bool = False
    project: bool = True

    def __post_init__(self) -> None:
        check_number("shell.expand", self.expand, least=0.0625, most=64)
        check_choice("shell.gate", self.gate, GATES)
        check_number("shell.gate_rank", self.gate_rank, least=0, most=4096, integer=True)
        check_choice("shell.conv", self.conv, CONVS)
        check_choice("shell.norm", self.norm, NORMS)
        for name in ("round_down", "conv_bias", "conv_first", "norm_heads", "norm_after_gate", "bias", "project"):
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
        raise InputError(
            f"shell='published' does not exist for {mixer} (not public, or no switches say it); allowed are {listed}"
        )
    check_choice("shell", name, allowed)
    return replace(allowed[name], **{key: value for key, value in switches.items() if value is not None})
