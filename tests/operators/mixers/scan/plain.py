"""A branch of the scan family by loops over tokens, as the papers write it down."""

import torch

from operators.mixers.scan.branch import Branch
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close


def plain(branch: Branch, tokens):
    """One branch by loops over the tokens of one image, in the order of the scan."""
    taps = 0 if branch.conv is None else branch.conv.weight.shape[-1]
    read = list(tokens)
    if taps:
        read = []
        for t in range(len(tokens)):
            total = branch.conv.bias
            for k in range(taps):  # the last tap meets the token itself
                if t - (taps - 1 - k) >= 0:
                    total = total + branch.conv.weight[:, 0, k] * tokens[t - (taps - 1 - k)]
            read.append(total * torch.sigmoid(total))
    rank, size = branch.rank, branch.state_dim
    h = torch.zeros(len(tokens[0]), size, dtype=tokens[0].dtype)
    outputs = []
    for v in read:
        made = branch.project.weight @ v
        low, B, C = made[:rank], made[rank : rank + size], made[rank + size :]
        dt = torch.log1p(torch.exp(branch.step.weight @ low + branch.step.bias))
        h = torch.exp(dt[:, None] * -torch.exp(branch.A_log)) * h + (dt * v)[:, None] * B
        outputs.append(h @ C + branch.D * v)
    return outputs


def on_grid(places, height, width):
    """A dictionary from (row, column) to vectors as one tensor (H, W, D)."""
    return torch.stack([torch.stack([places[i, j] for j in range(width)]) for i in range(height)])


def assert_defined_by(mixer, function, x, tolerance=1e-12):
    """Fail unless the mixer's output and every gradient are those of a function of the images (B, H, W, D), one by one.

    What has no gradient by the definition, because it only reaches a past that is not there, may have one of zeros.
    """

    def images(x):
        return torch.stack([function(image) for image in x])

    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=images)
    assert_close(y, expected, tolerance, "y")
    for key, gradient in gradients.items():
        zero = torch.zeros_like(dict(mixer.named_parameters()).get(key, x))
        made, due = (zero if each is None else each for each in (gradient, wanted[key]))
        assert_close(made, due, tolerance, f"gradient of {key}")
