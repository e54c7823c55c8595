"""The shell against its equations, written out."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import ShellSpec
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


def plain_shell(mixer, x):
    """The shell's equations, written out, around the mixer's own core."""
    shell, spec, width = mixer.shell, mixer.shell.spec, mixer.shell.width
    u = gate = x
    if spec.project:
        projected = x @ shell.in_proj.weight.T + (shell.in_proj.bias if spec.bias else 0)
        u, gate = projected[..., :width], projected[..., width:]
    if spec.conv:
        reach, weight = spec.conv // 2, shell.conv.weight[:, 0]
        padded = F.pad(u, (0, 0, reach, reach, reach, reach))
        height, wide = x.shape[1:3]
        taps = itertools.product(range(spec.conv), range(spec.conv))
        u = sum(padded[:, i : i + height, j : j + wide] * weight[:, i, j] for i, j in taps) + shell.conv.bias
        u = u * torch.sigmoid(u)
    y = mixer.core(u, x=x)
    if spec.norm == "layer":
        y = y - y.mean(-1, keepdim=True)
    if spec.norm != "none":
        y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * shell.norm.weight
    if spec.norm == "layer":
        y = y + shell.norm.bias
    if spec.gate == "silu":
        y = y * gate * torch.sigmoid(gate)
    elif spec.gate == "linear":
        y = y * gate
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


@pytest.mark.parametrize("switch", [{"gate": "none"}, {"conv": 3}, {"norm": "none"}, {"norm": "layer"}, {"bias": True}])
def test_every_switch_of_the_shell_does_something(switch):
    torch.manual_seed(0)
    base, other = operators.create("pool", 8), operators.create("pool", 8, shell=switch)
    with torch.no_grad():
        for parameter in itertools.chain(base.parameters(), other.parameters()):
            parameter.fill_(0.3)
            parameter.view(-1)[::2] = -0.2
    x = torch.randn(2, 5, 4, 8)
    assert_differs(other(x), base(x), 1e-3, "y")
