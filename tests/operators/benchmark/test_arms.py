import pytest
import torch

import operators
from operators import InputError
from operators.benchmark.arms import MixerArm, mixer_arms
from operators.benchmark.options import LEVELS, parse_settings, parse_values
from operators.benchmark.workload import BOTH, FORWARD, Shape, Target, functions
from operators.testing.checks import assert_close
from tests.operators.benchmark.cases import CPU, TINY


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,4", [1, 4]),
        ("0.5,true,none,neumann", [0.5, True, None, "neumann"]),
        ("[a,b],[],[1,[2]]", [["a", "b"], [], [1, [2]]]),
        (" 1e-3 , x", [1e-3, "x"]),
    ],
)
def test_values(text, values):
    assert parse_values(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("state=1", "must read MIXER.PARAMETER=VALUE"),
        ("pde_ssm.state", "must read MIXER.PARAMETER=VALUE"),
        ("pde_ssm.state=", "must read MIXER.PARAMETER=VALUE"),
        ("pde_ssm.state=1,,2", "lacks a value"),
        ("pde_ssm.terms=[a", "brackets do not match"),
        ("pde_ssm.terms=a]", "brackets do not match"),
    ],
)
def test_settings_that_cannot_be_read(text, message):
    with pytest.raises(InputError, match=message):
        parse_settings([text])


def test_a_parameter_cannot_be_set_twice():
    with pytest.raises(InputError, match="set twice"):
        parse_settings(["conv.kernel=3", "conv.kernel=5"])


def test_every_combination_is_an_arm():
    settings = parse_settings(["pde_ssm.state=1,4", "pde_ssm.boundary=periodic,neumann", "attention.qk_norm=true"])
    labels = [arm.label for arm in mixer_arms(["pde_ssm", "attention", "pom", "pom"], "core", settings)]
    assert labels == [
        *(f"pde_ssm[boundary={b},state={s}]" for s in (1, 4) for b in ("periodic", "neumann")),
        "attention[qk_norm=true]",
        "pom",
    ]


@pytest.mark.parametrize(
    ("names", "level", "settings", "message"),
    [
        (["pomm"], "core", {}, "did you mean 'pom'"),
        (["pom"], "cores", {}, "did you mean 'core'"),
        (["pom"], "core", {"conv": {}}, "has no 'conv'"),
        (["pom"], "core", {"pom": {"degre": [1]}}, "did you mean 'degree'"),
        (["pom"], "core", {"pom": {"shell": ["published"]}}, "has no 'shell'"),
    ],
)
def test_what_does_not_exist_is_refused(names, level, settings, message):
    with pytest.raises(InputError, match=message):
        mixer_arms(names, level, settings)


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_what_they_say(level):
    arm = MixerArm("conv", level)
    workload = arm.build(TINY, CPU)
    (x,) = workload.inputs
    subject = arm.module(TINY)
    mixer = subject.mixer
    expected = {
        "core": lambda: mixer.core(x, x=x),
        "mixer": lambda: mixer(x),
        "block": lambda: _block(subject, x),
    }[level]()
    assert_close(functions(workload, CPU)[FORWARD](), expected.detach(), 1e-6, level)
    ffn = 8 * TINY.tokens * TINY.dim**2 if level == "block" else 0
    assert workload.macs == mixer.cost(TINY.height, TINY.width).macs + ffn
    assert len(workload.parameters) == len(list(subject.parameters()))
    assert (mixer.shell.spec == operators.BARE) == (level == "core")


def _block(subject, x):
    x = x + subject.mixer(subject.norm_mixer(x))
    return x + subject.ffn(subject.norm_ffn(x))


def test_cost_is_that_of_the_batch():
    one, three = (MixerArm("attention").build(Shape(batch, 3, 4, 8), CPU).macs for batch in (1, 3))
    assert three == 3 * one


def test_conditioned_mixers_get_a_condition():
    workload = MixerArm("pde_ssm", params={"condition": "cond", "groups": 2}).build(TINY, CPU)
    assert [tuple(tensor.shape) for tensor in workload.inputs] == [(1, 3, 4, 8), (1, 8)]
    functions(workload, CPU)[BOTH]()
    assert workload.inputs[1].grad.abs().sum() > 0


def test_fixed_matrices_are_read_but_get_no_gradient():
    workload = MixerArm("random", "core").build(TINY, CPU)
    assert [tuple(tensor.shape) for tensor in workload.constants] == [(12, 12)]
    assert workload.parameters == ()


def test_half_precision_is_autocast():
    place = Target("cpu", "bfloat16")
    workload = MixerArm("attention").build(TINY, place)
    types = []
    workload.inputs[0].register_hook(lambda gradient: types.append(gradient.dtype))
    with place.autocast():
        assert torch.nn.functional.linear(workload.inputs[0], torch.zeros(2, 8)).dtype == torch.bfloat16
    functions(workload, place)[BOTH]()
    assert types == [torch.float32]
