"""`hydra` against its dense matrix and its definition by loops, the ranks of its blocks, and its limits."""

import pytest
import torch

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import noise, run, run_with_gradients
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make

EXACT = 1e-12


def dense(core, tokens):
    """The matrices over the tokens (heads, N, N) by loops over pairs, and the values (N, D), of one image in order."""
    size, heads, width = core.state_dim, core.heads, tokens.shape[-1]
    maps = tokens @ core.project.weight.T
    steps = maps[:, 4 * size :]
    read = torch.cat([tokens, maps[:, : 4 * size]], 1)
    if core.conv is not None:
        reach = core.conv.weight.shape[-1] // 2
        rows = []
        for t in range(len(tokens)):
            total = core.conv.bias
            for offset in range(-reach, reach + 1):
                if 0 <= t + offset < len(tokens):
                    total = total + core.conv.weight[:, 0, reach + offset] * read[t + offset]
            rows.append(total * torch.sigmoid(total))
        read = torch.stack(rows)
    v, B, C, B_back, C_back = read.split([width, size, size, size, size], 1)
    matrices = []
    for head in range(heads):
        rate = torch.exp(core.A_log[head])
        ahead, back = (torch.log1p(torch.exp(steps[:, i * heads + head] + core.step_bias[head])) for i in (0, 1))
        rows = []
        for t in range(len(tokens)):
            row = []
            for s in range(len(tokens)):
                if s < t:
                    row.append(C[t - 1] @ B[s] * ahead[s] * torch.exp(-rate * ahead[s + 1 : t].sum()))
                elif s > t:
                    row.append(C_back[t + 1] @ B_back[s] * back[s] * torch.exp(-rate * back[t + 1 : s].sum()))
                else:
                    row.append(core.D[head] + core.diagonal.weight[head] @ v[t])
            rows.append(torch.stack(row))
        matrices.append(torch.stack(rows))
    return torch.stack(matrices), v


def by_matrix(mixer, x):
    core = mixer.core
    order = orders.permutation(core.order, *x.shape[1:3])
    images = []
    for tokens in x.flatten(1, 2):
        matrices, v = dense(core, tokens[order])
        y = torch.cat([M @ part for M, part in zip(matrices, v.chunk(core.heads, 1), strict=True)], 1)
        images.append(y[order.argsort()])
    return torch.stack(images).view(x.shape)


@pytest.mark.parametrize("params", [{"heads": 2}, {"heads": 1, "conv": 3, "order": "snake_col"}], ids=str)
@pytest.mark.parametrize("grid", [(3, 3), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_dense_quasiseparable_matrix(grid, params):
    mixer, x = make("hydra", state_dim=2, **params), image(*grid, batch=1)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_matrix(mixer, x))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        # One token has no past and no future.
        assert_close(gradient, torch.zeros_like(gradient) if wanted[key] is None else wanted[key], EXACT, key)


def test_blocks_beside_the_diagonal_have_the_rank_of_the_state():
    mixer = make("hydra", state_dim=2, heads=1)
    tokens = noise(12, 6, dtype=torch.float64)
    (matrix,), _ = dense(mixer.core, tokens)
    identity = torch.zeros(6, 1, 12, 6, dtype=torch.float64)
    for t in range(6):
        identity[t, 0, 2 * t, 0] = identity[t, 0, 2 * t + 1, 1] = 1  # two channels read two columns at once
    with torch.no_grad():
        y = mixer.core(identity, x=tokens[None, None].expand(6, -1, -1, -1))[:, 0]
    columns = torch.stack([y[t // 2, :, t % 2] for t in range(12)], 1)
    off = ~torch.eye(12, dtype=torch.bool)
    assert_close(columns[off], matrix.detach()[off], EXACT, "columns of the matrix")
    for cut in range(3, 10):
        for block in (columns[cut:, :cut], columns[:cut, cut:]):
            assert torch.linalg.matrix_rank(block, atol=1e-10, rtol=0) == 2


def test_starts_as_published():
    core = operators.create("hydra", 96, shell="published").core
    assert core.A_log.count_nonzero() == 0
    assert core.D.unique().tolist() == [1]
    assert (core.heads, core.state_dim, core.conv.weight.shape[-1]) == (3, 64, 7)
    assert operators.create("hydra", 96).core.conv is None


def test_outputs_depend_on_both_ends():
    mixer, x = make("hydra"), image(3, 4)
    changed = x.clone()
    changed[:, 1, 2] += 1
    assert (run(mixer, changed) - run(mixer, x)).abs().amax((0, 3)).min() > 1e-6


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": "row_r"}, "mixer.order='row_r' must be an order without '_r'"),
        ({"order": "spirl"}, "did you mean 'spiral'"),
        ({"conv": 2}, "mixer.conv=2 must be odd, or 0"),
        ({"heads": 5}, "mixer.heads=5 must divide the width 6"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make("hydra", **params)
