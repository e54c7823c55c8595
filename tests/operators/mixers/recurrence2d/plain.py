"""Recurrences over a grid by loops over the cells of one image, as the papers write them down, from the top left."""

import torch

from operators.testing.cases import noise, run_with_gradients
from operators.testing.checks import assert_close


def softplus(x):
    return torch.log1p(torch.exp(x))


def lattice(branch, image):
    """One branch of `mamba2d`."""
    rank, size = branch.rank, branch.state_dim
    a_row, a_col = -torch.exp(branch.A_row_log), -torch.exp(branch.A_col_log)
    states, outputs = {}, torch.zeros_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            v = image[i, j]
            low_row, low_col, b_row, b_col, c = (branch.project.weight @ v).split([rank, rank, size, size, size])
            dt_row = softplus(branch.step_row.weight @ low_row + branch.step_row.bias)
            dt_col = softplus(branch.step_col.weight @ low_col + branch.step_col.bias)
            zero = torch.zeros(len(v), size, dtype=v.dtype)
            left = torch.exp(dt_row[:, None] * a_row) * states.get((i, j - 1), zero) + (dt_row * v)[:, None] * b_row
            up = torch.exp(dt_col[:, None] * a_col) * states.get((i - 1, j), zero) + (dt_col * v)[:, None] * b_col
            states[i, j] = left if i == 0 else up if j == 0 else (left + up) / 2
            outputs[i, j] = states[i, j] @ c + branch.D * v
    return outputs


def two_step(branch, image):
    """One branch of `two_d_mamba`: every state by its own sum over the cells before it."""
    rank, size = branch.rank, branch.state_dim
    height, width = image.shape[:2]
    maps = {}
    for i in range(height):
        for j in range(width):
            low, b, c = (branch.project.weight @ image[i, j]).split([rank, size, size])
            dt = softplus(branch.step.weight @ low + branch.step.bias)
            through = torch.exp(dt[:, None] * -torch.exp(branch.A_log))
            maps[i, j] = through, (dt * image[i, j])[:, None] * b, c
    outputs = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            h = 0
            for s in range(i + 1):
                for t in range(j + 1):
                    way = maps[s, t][1]
                    for q in range(t + 1, j + 1):  # along row s
                        way = way * maps[s, q][0]
                    for r in range(s + 1, i + 1):  # then down column j
                        way = way * maps[r, j][0]
                    h = h + way
            outputs[i, j] = h @ maps[i, j][2] + branch.D * image[i, j]
    return outputs


def roesser(branch, image):
    """One branch of `chimera`."""
    rank, size, share = branch.rank, branch.state_dim, branch.coupling
    a_1, a_2, a_3, a_4 = (-torch.exp(getattr(branch, f"A_{k}_log")) for k in range(1, 5))
    along, down, outputs = {}, {}, torch.zeros_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            v = image[i, j]
            low_row, low_col, *maps = (branch.project.weight @ v).split([rank] * 2 + [size] * 4)
            b_row, b_col, c_row, c_col = maps
            dt_row = softplus(branch.step_row.weight @ low_row + branch.step_row.bias)[:, None]
            dt_col = softplus(branch.step_col.weight @ low_col + branch.step_col.bias)[:, None]
            g, h = dt_row * v[:, None] * b_row, dt_col * v[:, None] * b_col
            if j:
                left = i, j - 1
                g = (
                    g
                    + (1 - share) * torch.exp(dt_row * a_1) * along[left]
                    + share * torch.exp(dt_row * a_2) * down[left]
                )
            if i:
                up = i - 1, j
                h = h + share * torch.exp(dt_col * a_3) * along[up] + (1 - share) * torch.exp(dt_col * a_4) * down[up]
            along[i, j], down[i, j] = g, h
            outputs[i, j] = g @ c_row + h @ c_col + branch.D * v
    return outputs


def by_loops(plain, branches, x, scale):
    """The sum of branches, scaled, each on its own turned image."""
    total = torch.zeros_like(x)
    for branch in branches:
        bottom, right, transposed = branch.start
        axes = [axis for axis, flipped in ((0, bottom), (1, right)) if flipped]
        for b in range(len(x)):
            image = x[b].transpose(0, 1) if transposed else x[b]
            y = plain(branch, image.flip(axes)).flip(axes)
            total[b] += scale * (y.transpose(0, 1) if transposed else y)
    return total


def assert_like_loops(mixer, plain, x, scale):
    """Fail unless a bare mixer has the output and all gradients of `by_loops`."""
    y, gradients = run_with_gradients(mixer, x)
    leaf = x.clone().requires_grad_()
    wanted = {"input": leaf, **dict(mixer.named_parameters())}
    expected = by_loops(plain, mixer.core.branches, leaf, scale)
    parts = torch.autograd.grad(
        expected, list(wanted.values()), noise(*y.shape, dtype=y.dtype, seed=4), allow_unused=True,
        materialize_grads=True,
    )  # fmt: skip
    assert_close(y, expected.detach(), 1e-12, "y")
    for (name, found), part in zip(gradients.items(), parts, strict=True):
        if part.count_nonzero():
            assert_close(found, part, 1e-11, f"gradient of {name}")
        else:  # rates of a single cell
            assert not found.count_nonzero(), name
