"""The shell against its equations, written out."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import ShellSpec
from operators.shell.shell import Shell
from operators.testing.checks import assert_close, assert_differs


def test_common_is_the_default_shell_and_the_same_for_every_core():
    assert operators.create("pool", 8).shell.spec == operators.COMMON == ShellSpec()
    states = []
    for name in ("attention", "pool"):
        torch.manual_seed(3)
        states.append(operators.create(name, 8).shell.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert_close(states[1][name], value, 0, name)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (ShellSpec(), ["in_proj.weight", "out_proj.weight", "norm.weight"]),
        (
            ShellSpec(gate="linear", norm="none", bias=True),
            ["in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias"],
        ),
        (
            ShellSpec(conv=3, norm="layer", conv_bias=False),
            ["in_proj.weight", "out_proj.weight", "conv.weight", "norm.weight", "norm.bias"],
        ),
        (ShellSpec(gate_rank=3, norm="none"), ["in_proj.weight", "out_proj.weight", "gate_proj.weight"]),
        (operators.BARE, []),
    ],
)
def test_names_in_the_state_and_their_order(spec, names):
    assert list(Shell(8, spec).state_dict()) == names


def test_the_projections_draw_first_whatever_else_the_shell_has():
    drawn = []
    for spec in (ShellSpec(), ShellSpec(gate="sigmoid", conv=3, norm="layer", norm_after_gate=True)):
        torch.manual_seed(5)
        drawn.append(Shell(8, spec))
    for name in ("in_proj", "out_proj"):
        assert torch.equal(*(getattr(shell, name).weight for shell in drawn))


def plain_convolution(shell, u):
    """The depthwise convolution of u (B, H, W, D), tap by tap, with zeros beyond the border."""
    side, weight = shell.spec.conv, shell.conv.weight[:, 0]
    height, wide = u.shape[1:3]
    padded = F.pad(u, (0, 0, *(4 * [side // 2])))
    taps = itertools.product(range(side), range(side))
    return sum(padded[:, i : i + height, j : j + wide] * weight[:, i, j] for i, j in taps) + shell.conv.bias


def plain_norm(shell, y, heads):
    """The norm of y (B, H, W, D), of each head by itself."""
    out = []
    for head in y.chunk(heads, -1):
        if shell.spec.norm == "layer":
            head = head - head.mean(-1, keepdim=True)
        if shell.spec.norm != "none":
            head = head / (head.square().mean(-1, keepdim=True) + 1e-6).sqrt() * shell.norm.weight
        out.append(head + shell.norm.bias if shell.spec.norm == "layer" else head)
    return torch.cat(out, -1)


def plain_shell(mixer, x):
    """The shell's equations, written out, around the mixer's own core."""
    shell, spec, width = mixer.shell, mixer.shell.spec, mixer.shell.width
    before = spec.conv and spec.conv_first
    u = z = plain_convolution(shell, x) if before else x
    if spec.project:
        projected = u @ shell.in_proj.weight.T + (shell.in_proj.bias if spec.bias else 0)
        u, z = projected[..., :width], projected[..., width:]
    if spec.conv and not before:
        u = plain_convolution(shell, u)
        u = u * torch.sigmoid(u)
    if spec.gate_rank:
        z = z @ shell.gate_proj.weight.T + (shell.gate_proj.bias if spec.bias else 0)
    factors = {"none": 1, "linear": z, "sigmoid": torch.sigmoid(z), "silu": z * torch.sigmoid(z)}
    factor = z * (1 + torch.erf(z / 2**0.5)) / 2 if spec.gate == "gelu" else factors[spec.gate]
    heads = mixer.core.heads if spec.norm_heads else 1
    y = mixer.core(u, x=x)
    y = plain_norm(shell, y * factor, heads) if spec.norm_after_gate else plain_norm(shell, y, heads) * factor
    if spec.project:
        y = y @ shell.out_proj.weight.T + (shell.out_proj.bias if spec.bias else 0)
    return y


SPECS = [
    ShellSpec(),
    ShellSpec(expand=1.5, bias=True, norm="layer"),
    ShellSpec(gate="none", conv=3, norm="none"),
    ShellSpec(expand=2, conv=5, bias=True),
    ShellSpec(gate="linear"),
    ShellSpec(gate="linear", norm="none", bias=True),
    ShellSpec(expand=8 / 3, round_down=True, gate="gelu", bias=True),
    ShellSpec(gate="sigmoid", gate_rank=3, bias=True),
    ShellSpec(gate="sigmoid", norm="layer", norm_after_gate=True),
    ShellSpec(expand=2, gate_rank=5, norm_after_gate=True),
    ShellSpec(conv=3, conv_first=True, expand=2, norm="layer", bias=True),
    ShellSpec(gate="none", norm="layer", conv=7, project=False),
    operators.BARE,
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("name", ["pool", "attention"])
def test_shell_equations(name, spec):
    mixer = operators.create(name, 8, shell=spec).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    x = torch.randn(2, 5, 4, 8, dtype=torch.float64)
    assert_close(mixer(x), plain_shell(mixer, x), 1e-12, "y")
    assert mixer.cost(5, 4).parameters == sum(parameter.numel() for parameter in mixer.parameters())


HEADS = [
    ShellSpec(norm_heads=True),
    ShellSpec(gate="none", norm="layer", norm_heads=True, project=False),
    ShellSpec(expand=2, gate="sigmoid", gate_rank=3, norm_heads=True, norm_after_gate=True),
    ShellSpec(norm="none", norm_heads=True),
]


@pytest.mark.parametrize("spec", HEADS, ids=str)
@pytest.mark.parametrize("name", ["attention", "linear_attention"])
def test_each_head_is_normalised_by_itself(name, spec):
    mixer = operators.create(name, 8, shell=spec, heads=2).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    assert spec.norm == "none" or mixer.shell.norm.weight.shape == (mixer.shell.width // 2,)
    x = torch.randn(2, 5, 4, 8, dtype=torch.float64)
    assert_close(mixer(x), plain_shell(mixer, x), 1e-12, "y")
    assert mixer.cost(5, 4).parameters == sum(parameter.numel() for parameter in mixer.parameters())


def test_a_field_large_enough_for_compiled_code_is_normalised_by_heads_too():
    shell = Shell(64, ShellSpec(norm_heads=True))
    shell.normalise_heads(4)
    shell.double()
    y, z = torch.randn(2, 16, 16, 64).double().requires_grad_(), torch.randn(2, 16, 16, 128).double().requires_grad_()
    whole = shell.leave(y, z[..., 64:])
    parts = torch.cat([shell.leave(y[i : i + 1], z[i : i + 1, ..., 64:]) for i in range(2)])
    assert_close(whole, parts, 1e-12, "y")
    gradient, wanted = torch.randn_like(whole), [y, z, *shell.norm.parameters()]
    for got, expected in zip(*(torch.autograd.grad(out, wanted, gradient) for out in (whole, parts)), strict=True):
        assert_close(got, expected, 1e-12, "gradient")


@pytest.mark.parametrize(
    ("expand", "nearest", "lower"), [(8 / 3, 43, 42), (1.5, 24, 24), (0.0625, 1, 1), (1.99, 32, 31)]
)
def test_the_inner_width_is_the_nearest_whole_number_or_the_next_lower_one(expand, nearest, lower):
    widths = [Shell(16, ShellSpec(expand=expand, round_down=down)).width for down in (False, True)]
    assert widths == [nearest, lower]


def test_heads_of_a_core_without_any_are_refused():
    with pytest.raises(operators.InputError, match=r"shell.norm_heads=True needs a core with heads: mixer pool has"):
        operators.create("pool", 8, shell={"norm_heads": True})


def test_what_a_context_is_read_through_has_the_gate_of_low_rank():
    mixer = operators.create("attention", 8, shell={"gate": "sigmoid", "gate_rank": 3, "norm_heads": True}, heads=2)
    x = torch.randn(2, 3, 5, 8)
    assert_close(mixer(x, context=x.flatten(1, 2)), mixer(x), 1e-6, "y")


@pytest.mark.parametrize(
    ("switches", "without"),
    [
        ({"gate": "none", "gate_rank": 3, "norm_after_gate": True}, {"gate": "none"}),
        ({"conv_first": True, "conv_bias": False}, {}),
        ({"norm": "none", "norm_heads": True, "norm_after_gate": True}, {"norm": "none"}),
    ],
    ids=str,
)
def test_what_is_said_of_a_part_that_is_not_there_means_nothing(switches, without):
    x, outputs = torch.randn(2, 5, 4, 8), []
    for shell in (switches, without):
        torch.manual_seed(0)
        outputs.append(operators.create("attention", 8, shell=shell, heads=2)(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    "switch",
    [
        *({"gate": gate} for gate in ("none", "gelu", "sigmoid", "linear")),
        *({"norm": norm} for norm in ("none", "layer")),
        *({switch: True} for switch in ("bias", "norm_heads", "norm_after_gate")),
        {"gate_rank": 3},
        {"conv": 3},
        {"conv": 3, "conv_first": True},
    ],
    ids=str,
)
def test_every_switch_of_the_shell_does_something(switch):
    torch.manual_seed(0)
    base, other = (operators.create("attention", 8, shell=shell, heads=2) for shell in ("common", switch))
    with torch.no_grad():
        for parameter in itertools.chain(base.parameters(), other.parameters()):
            parameter.copy_(0.5 * torch.arange(1.0, 1 + parameter.numel()).sin().view_as(parameter))
    x = torch.randn(2, 5, 4, 8)
    assert_differs(other(x), base(x), 1e-3, "y")
