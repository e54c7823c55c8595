import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import assert_is, bare, image, make

NAME, WIDTH = "homm", 12


def plain(mixer, x):
    """The mixer by loops over tokens, from its parameters; with W_in and W_out where the shell has them."""
    core, shell, outputs = mixer.core, mixer.shell, []
    for tokens in x.flatten(1, 2):
        total = 0
        for token in tokens:
            u = shell.in_proj.weight @ token + shell.in_proj.bias if shell.spec.project else token
            g, chunks = (u * (1 + torch.erf(u / math.sqrt(2))) / 2).chunk(core.order), []
            for p in range(core.order):
                chunks.append(math.prod(g[1 : p + 1], start=g[0]))
            total = total + torch.cat(chunks)
        for token in tokens:
            gate = 1 / (1 + (-(core.gate.weight @ token + core.gate.bias)).exp())
            y = gate * total / len(tokens)
            outputs.append(shell.out_proj.weight @ y + shell.out_proj.bias if shell.spec.project else y)
    return torch.stack(outputs).view(x.shape)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("grid", [(3, 5), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, order):
    assert_is(bare(NAME, WIDTH, order=order), image(*grid, width=WIDTH), plain)


def test_published_mixer_is_the_definition_with_its_maps():
    assert_is(make(NAME, WIDTH, shell="published", order=4), image(3, 5, width=WIDTH), plain)
    cost = operators.create(NAME, 64, shell="published").cost(7, 7)
    assert cost.parameters == 3 * 64 * 256 + 2 * 256 + 64
    assert cost.state_elements == 256


def test_a_chunk_of_degree_p_grows_as_the_power_p():
    """Far above zero GELU is the identity."""
    mixer, x = bare(NAME, WIDTH, order=3), 10 + image(5, 7, width=WIDTH).abs()
    ratio = mixer.inspect(2 * x)["context"] / mixer.inspect(x)["context"]
    expected = torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64).repeat_interleave(4).expand_as(ratio)
    assert_close(ratio, expected, 1e-12, "growth")


def test_every_token_gets_the_same_context_up_to_its_gate():
    mixer, x = bare(NAME, WIDTH), image(5, 7, width=WIDTH)
    shown = mixer.inspect(x)
    assert_close(mixer(x), shown["gate"].movedim(1, -1) * shown["context"][:, None, None], 1e-13, "y")
    assert_close(mixer(x.repeat(1, 2, 1, 1)), mixer(x).repeat(1, 2, 1, 1), 1e-13, "y of doubled tokens")
    assert_differs(shown["gate"][:, :, 0, 0], shown["gate"][:, :, 2, 3], 1e-2, "gates of two tokens")


def test_averages_many_tokens_of_half_precision_in_float32():
    core = operators.create(NAME, 8, shell=operators.BARE).core
    context = core.context(torch.full((1, 64, 64, 8), 10 + 2**-4, dtype=torch.bfloat16))
    expected = torch.tensor([10 + 2**-4] * 4 + [(10 + 2**-4) ** 2] * 4)
    assert context.dtype == torch.float32
    assert_close(context[0, 0, 0], expected, 1e-5, "context")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": 0}, r"mixer\.order=0 must be an integer >= 1"),
        ({"order": 5}, r"mixer\.order=5 must divide the width 12"),
        ({"degree": 2}, r"mixer homm has no 'degree': allowed are order"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, WIDTH, **params)
    assert "\n" not in str(caught.value)
