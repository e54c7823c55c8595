"""What `torch.compile` is told of a function, without importing the compiler, which takes as long as the rest of torch.

The public decorators of `torch.compiler` import it where they stand; these do the same by private names of torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch._compile import _disable_dynamo

F = TypeVar("F", bound=Callable[..., Any])


def constant(function: F) -> F:
    """Mark `function` for the compiler, as `torch.compiler.assume_constant_result` does."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def untraced(function: F) -> F:
    """As `torch.compiler.disable`; the compiler is imported by the first call."""
    wrapped: Any = _disable_dynamo(function)
    return wrapped
