"""What `torch.compile` is told of a function, without importing the compiler, which takes as long as the rest of torch.

The public decorators of `torch.compiler` import it where they stand.
"""

from operators.runtime.torch_private import disable_compiler as untraced
from operators.runtime.torch_private import mark_constant as constant

__all__ = ["constant", "untraced"]
