import math

import pytest
import torch

import operators
from operators import InputError
from operators.mixers.heads import rope_angles
from operators.scan import orders
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs

GRIDS = [(5, 7), (4, 4), (1, 3), (1, 1)]
WIDTH = 8
LOW, HIGH = -0.1, 6.0


def make(width=WIDTH, *, seed=0, dtype=torch.float64, shell="published", **params):
    torch.manual_seed(seed)
    mixer = operators.create("pom", width, shell=shell, **params).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():  # far from the start, where the mixer does almost nothing
            parameter.add_(torch.randn_like(parameter))
    return mixer


def image(*grid, width=WIDTH, batch=2, seed=1, dtype=torch.float64):
    return torch.randn(batch, *grid, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def bare(**params):
    return make(shell=operators.BARE, **params)


def plain(mixer, x, clamp=(LOW, HIGH)):
    """The published mixer by loops over tokens and powers, from its parameters."""
    core, shell, outputs = mixer.core, mixer.shell, []
    for tokens in x.flatten(1, 2):
        total = torch.zeros(core.site.width, dtype=x.dtype)
        for token in tokens:
            h = shell.in_proj.weight @ token
            f = torch.where(h > 0, h, 0.01 * h)
            if clamp is not None:
                f = f.minimum(torch.tensor(clamp[1], dtype=x.dtype)).maximum(torch.tensor(clamp[0], dtype=x.dtype))
            for power in range(1, core.coefficients.shape[1] + 1):
                total = total + core.coefficients[:, power - 1] * f**power
        for token in tokens:
            s = ((core.gate.weight @ token + core.gate.bias + 3) / 6).clamp(0, 1)
            s = torch.cat([gate.expand(core.site.width // len(s)) for gate in s])
            outputs.append(shell.out_proj.weight @ (s * total / len(tokens)))
    return torch.stack(outputs).view(x.shape)


# ---------------------------------------------------------------- against the definition


@pytest.mark.parametrize("params", [{}, {"degree": 1}, {"degree": 4}, {"heads": 4}, {"heads": 1}], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make(**params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, expected_gradients = run_with_gradients(mixer, x, through=lambda x: plain(mixer, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        # Torch's derivative of the hard sigmoid is 1/6 in float32 digits, whatever the type.
        through_gate = name == "input" or name.startswith("core.gate")
        assert_close(gradient, expected_gradients[name], 1e-7 if through_gate else 1e-12, f"gradient of {name}")


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("heads", [None, 4, 2])
def test_published_mixer_has_as_many_parameters_as_the_released_module(degree, heads):
    """There: a map C -> 2C + gates without bias, a bias of the gates, 2C coefficients a degree, a map 2C -> C."""
    width, gates = 24, heads or 48
    expected = width * (2 * width + gates) + gates + 2 * width * degree + 2 * width * width
    assert (
        operators.create("pom", width, shell="published", degree=degree, heads=heads).cost(4, 4).parameters == expected
    )


def test_starts_as_published():
    torch.manual_seed(0)
    core = operators.create("pom", 256, shell="published", degree=3).core
    coefficients, weight = core.coefficients.detach(), core.gate.weight.detach()
    sizes = coefficients.abs()
    assert coefficients.shape == (512, 3)
    assert sizes.max() == torch.tensor(1e-3)
    assert (sizes == sizes.max()).float().mean() > 0.99
    assert abs(coefficients.sign().mean()) < 0.1
    assert core.gate.bias.count_nonzero() == 0
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 256), rel=0.02)


# ---------------------------------------------------------------- what tokens learn of each other


@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("shell", ["common", "published"])
def test_permuting_tokens_permutes_outputs_unless_positions_are_rotated_in(shell, rope):
    mixer, x = make(shell=shell, rope=rope), image(5, 7)
    shuffled = orders.scatter(orders.gather(x, "hilbert"), "row", 5, 7)
    expected = orders.scatter(orders.gather(mixer(x), "hilbert"), "row", 5, 7)
    if rope:
        assert_differs(mixer(shuffled), expected, 1e-2, "y of permuted tokens")
    else:
        assert_close(mixer(shuffled), expected, 1e-12, "y of permuted tokens")


def test_doubling_all_tokens_changes_nothing():
    mixer, x = make(), image(5, 7)
    assert_close(mixer(x.repeat(1, 2, 1, 1)), mixer(x).repeat(1, 2, 1, 1), 1e-12, "y of doubled tokens")


@pytest.mark.parametrize("heads", [None, 4])
def test_what_one_token_learns_of_another_depends_on_it_through_its_gate_alone(heads):
    """dy_i / dx_j = W_o diag(s_i) P'(u_j) W_h / N, P'(u) = f'(u) sum_p p alpha_p f^(p - 1), for i other than j."""
    mixer, x = make(degree=3, heads=heads), image(2, 3, batch=1)
    jacobian = torch.autograd.functional.jacobian(mixer, x)[0, :, :, :, 0].reshape(6, WIDTH, 6, WIDTH)
    core, w_h, w_o = mixer.core, mixer.shell.in_proj.weight, mixer.shell.out_proj.weight
    u = x.view(6, WIDTH) @ w_h.T
    f = torch.where(u > 0, u, 0.01 * u)
    slope = torch.where(u > 0, torch.ones_like(u), 0.01) * ((f > LOW) & (f < HIGH))
    derivative = slope * sum(p * core.coefficients[:, p - 1] * f ** (p - 1) for p in (1, 2, 3))
    gates = core.selection(x).view(6, -1).repeat_interleave(1 if heads is None else 2 * WIDTH // heads, dim=1)
    assert (gates * (1 - gates)).count_nonzero() > 0
    for i in range(6):
        for j in range(6):
            expected = w_o @ torch.diag(gates[i] * derivative[j]) @ w_h / 6
            if i != j:
                assert_close(jacobian[i, :, j], expected, 1e-12, f"dy_{i}/dx_{j}")


def test_every_token_gets_the_same_context_up_to_its_gate():
    mixer, x = bare(heads=4), image(5, 7)
    shown = mixer.inspect(x)
    assert shown["context"].shape == (2, WIDTH)
    assert shown["gate"].shape == (2, 4, 5, 7)
    gates = shown["gate"].movedim(1, -1).repeat_interleave(WIDTH // 4, dim=-1)
    assert 0 < gates.mean() < 1
    assert_close(mixer(x), gates * shown["context"][:, None, None], 1e-13, "y")


def test_a_head_gates_neighbouring_channels_alike():
    mixer, x = bare(heads=2), image(5, 7)
    ratio = mixer(x) / mixer.inspect(x)["context"][:, None, None]
    first, second = ratio.split(WIDTH // 2, dim=-1)
    for half in (first, second):
        assert_close(half, half[..., :1].expand_as(half), 1e-12, "gates of a head")
    assert_differs(first, second, 1e-2, "gates of two heads")
    assert_differs(first[:, :1], first[:, 1:2], 1e-2, "gates of two tokens")


# ---------------------------------------------------------------- clamp


def contexts(values, **params):
    """The context that an image of one token and one value u gives, for each of `values`, and P(u) = u."""
    mixer = bare(degree=1, **params)
    with torch.no_grad():
        mixer.core.coefficients.fill_(1)
    u = torch.tensor(values, dtype=torch.float64)[:, None, None, None].expand(-1, 1, 1, WIDTH)
    return mixer.inspect(u)["context"][:, 0].tolist()


def test_the_activation_is_a_leaky_rectifier_with_bounds():
    values = [-1000.0, -10.5, -5.0, 0.0, 2.0, 5.5, 6.5, 1000.0]
    assert contexts(values) == pytest.approx([-0.1, -0.1, -0.05, 0, 2, 5.5, 6, 6], abs=1e-15)
    assert contexts(values, clamp=[-1, 3]) == pytest.approx([-1, -0.105, -0.05, 0, 2, 3, 3, 3], abs=1e-15)
    assert contexts(values, clamp=None) == pytest.approx([-10, -0.105, -0.05, 0, 2, 5.5, 6.5, 1000], abs=1e-15)


def test_no_token_can_outweigh_the_others_beyond_the_clamp():
    mixer, x = bare(), image(5, 7)
    large, huge = x.clone(), x.clone()
    large[:, 2, 3], huge[:, 2, 3] = 7, 7e6
    others = torch.ones(5, 7, dtype=torch.bool)
    others[2, 3] = False
    assert_close(mixer(huge)[:, others], mixer(large)[:, others], 1e-14, "other tokens")
    free = bare(clamp=None)
    assert_differs(free(huge)[:, others], free(large)[:, others], 1, "other tokens without a clamp")


# ---------------------------------------------------------------- rotary positions


def test_rope_turns_the_polynomials_before_the_mean_and_the_gates():
    mixer, x = bare(rope=True, heads=2), image(5, 7)
    turned = rope_angles(5, 7, head_width=WIDTH, device=x.device, dtype=x.dtype).view(5, 7, WIDTH // 2)
    phase = torch.polar(torch.ones_like(turned), turned)

    def rotated(field):
        first, second = field.chunk(2, dim=-1)
        product = torch.complex(first, second) * phase
        return torch.cat([product.real, product.imag], dim=-1)

    f = torch.where(x > 0, x, 0.01 * x).clamp(LOW, HIGH)
    polynomials = f * mixer.core.coefficients[:, 0] + f**2 * mixer.core.coefficients[:, 1]
    gates = mixer.core.selection(x).repeat_interleave(WIDTH // 2, dim=-1)
    assert_close(mixer(x), rotated(gates) * rotated(polynomials).mean((1, 2), keepdim=True), 1e-13, "y")


def test_rope_is_relative_only_where_rotated_pairs_are_summed_with_equal_weights():
    """What token i reads of the only token j that is not zero, all gates alike, at two pairs with i - j = (2, -1)."""
    mixer = bare(rope=True)
    with torch.no_grad():
        mixer.core.gate.weight.zero_()

    def read(i, j):
        x = torch.zeros(1, 6, 6, WIDTH, dtype=torch.float64)
        x[0, *j] = image(1, 1, batch=1).flatten()
        return mixer(x)[0, *i]

    here, there, elsewhere = read((2, 2), (0, 3)), read((5, 4), (3, 5)), read((5, 5), (3, 5))

    def pairs(y):
        return y[: WIDTH // 2] + y[WIDTH // 2 :]

    assert_close(pairs(there), pairs(here), 1e-13, "sums of pairs at the same distance")
    assert_differs(pairs(elsewhere), pairs(here), 1e-2, "sums of pairs at another distance")
    assert_differs(there, here, 1e-2, "single channels at the same distance")


def test_of_one_token_only_the_pairs_turn():
    """At the origin all angles are zero."""
    assert_close(bare(rope=True)(image(1, 1)), bare()(image(1, 1)), 1e-14, "y")


# ---------------------------------------------------------------- the rest


def test_costs_the_gate_alone_beside_the_shell():
    own = operators.create("pom", 16, shell="published", heads=4).cost(5, 7)
    assert own.projection_macs == 35 * (16 * 32 + 16 * 4 + 32 * 16)
    assert own.mixing_macs == 0
    assert own.state_elements == 32
    assert operators.create("pom", 16, shell="published").cost(5, 7).projection_macs == 35 * 6 * 16**2


def test_asks_for_no_decay_of_its_coefficients():
    assert make().no_weight_decay() == {"core.coefficients"}


def test_averages_many_tokens_of_half_precision_in_float32():
    mixer = bare(dtype=torch.float32, degree=1)
    u = torch.full((1, 64, 64, WIDTH), 1.0 + 2**-7, dtype=torch.bfloat16)
    with torch.no_grad():
        mixer.core.coefficients.fill_(1)
    context = mixer.core.pooled(u)
    assert context.dtype == torch.float32
    assert_close(context, torch.full_like(context, 1 + 2**-7), 1e-6, "context")
    assert mixer.core(u, x=u.float()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"degree": 0}, r"mixer\.degree=0 must be an integer >= 1"),
        ({"degree": 2.0}, r"mixer\.degree=2\.0 must be an integer"),
        ({"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
        ({"clamp": [1]}, r"mixer\.clamp=\[1\] must be two numbers"),
        ({"clamp": "none"}, r"mixer\.clamp='none' must be two numbers \[low, high\], low < high, or null"),
        ({"clamp": [6, -0.1]}, r"mixer\.clamp=\[6, -0\.1\] must rise"),
        ({"clamp": [-0.1, None]}, r"mixer\.clamp\[1\]=None must be a number"),
        ({"rope": 1.5}, r"mixer\.rope=1\.5 is not known: allowed are True, False"),
        ({"expand": 2}, r"mixer pom has no 'expand': allowed are clamp, degree, heads, rope"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("pom", 16, **params)
    assert "\n" not in str(caught.value)


def test_a_width_that_cannot_be_rotated_is_refused():
    with pytest.raises(InputError, match=r"mixer\.rope=True needs a width divisible by 4, not 6"):
        operators.create("pom", 6, rope=True)


def test_the_gate_has_the_exact_derivative_in_float64():
    """A sixth in float64; torch's own hardsigmoid multiplies by a sixth in float32, off by 3e-8."""
    core = operators.create("pom", 16, shell=operators.BARE).double().core
    x = torch.linspace(-4, 4, 7 * 16, dtype=torch.float64).view(1, 1, 7, 16).requires_grad_()
    with torch.no_grad():
        core.gate.weight.copy_(torch.eye(16))
    (gradient,) = torch.autograd.grad(core.selection(x).sum(), x)
    expected = (x.detach().abs() < 3).double() / 6
    assert_close(gradient, expected, 1e-15, "gradient of the gate")
