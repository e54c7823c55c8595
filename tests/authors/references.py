"""What stands in for authors' kernels that need a GPU: references of the same repositories, or plain definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.authors.source import Source

TRITON: dict[str, dict[str, Any]] = {"triton": {}, "triton.language": {}}
FLA_TOOLS: dict[str, dict[str, Any]] = {
    "fla.ops.backends": {},
    "fla.ops.utils.cache": {},
    "fla.ops.utils.index": {},
    "fla.ops.utils.op": {},
    "fla.ops.utils.softplus": {},
    "fla.utils": {"autotune_cache_kwargs": {}},
}
"""What files of flash-linear-attention import for their kernels."""


def along_rows(theirs: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """A module for sequences (B, N, C), of which the first output counts, for grids (B, H, W, C)."""

    def mixed(x: Tensor) -> Tensor:
        y = theirs(x.flatten(1, 2))
        y = y[0] if isinstance(y, tuple) else y
        return y.view(x.shape)

    return mixed


def gated_norm(source: Source, module: str, name: str) -> Any:
    """A class of gated norms that calls the reference in its own file, in the place of that file's kernel."""
    loaded: Any = source.load(
        module,
        empty=("mamba_ssm", "fla.modules"),
        stubs={**TRITON, "fla.utils": {}},
        edits={".float()": ""},
    )
    loaded.rmsnorm_fn = loaded.rms_norm_ref
    return getattr(loaded, name)
