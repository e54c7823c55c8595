import pytest
import torch

import operators
from operators import InputError
from operators.benchmark.arms import MixerArm
from operators.benchmark.bare import BareArm, Recorder
from operators.benchmark.workload import BOTH, FORWARD, Shape, functions
from operators.testing.counter import OpCounter
from tests.operators.benchmark import cases
from tests.operators.benchmark.cases import CPU

SHAPE = Shape(batch=2, height=5, width=6, dim=8)
TWICE = torch.library.Library("operator_zoo", "FRAGMENT")
TWICE.define("twice_in_tests(Tensor x) -> Tensor")
TWICE.impl("twice_in_tests", lambda x: 2 * x, "CompositeExplicitAutograd")


def recorded(name, batch=2, **params):
    return BareArm(MixerArm(name, "core", params)).build(Shape(batch, 5, 6, 8), CPU)


@pytest.mark.parametrize("name", [name for name in operators.names() if name != "identity"])
def test_every_mixer_has_bare_operations_of_its_own_cost(name):
    """What is done once for all images, such as building filters, drops out of the difference."""
    core = operators.create(name, 8, grid=(5, 6), shell=operators.BARE).core
    canonical = getattr(core, "canonical", {})
    each = recorded(name, batch=2, **canonical).macs - recorded(name, batch=1, **canonical).macs
    assert each == pytest.approx(core.core_cost(5, 6).macs, abs=1, rel=1e-6)


def test_what_is_recorded_is_what_runs_again():
    workload = recorded("linear_attention")
    with Recorder() as forward:
        functions(workload, CPU)[FORWARD]()
    with Recorder() as both:
        functions(workload, CPU)[BOTH]()
    assert forward.macs == workload.macs
    assert [call.func for call in both.calls][: len(forward.calls)] == [call.func for call in forward.calls]
    assert len(both.calls) > len(forward.calls)


def test_gradients_of_a_product_are_two_products():
    a, b = (torch.randn(3, 3, requires_grad=True) for _ in range(2))
    with Recorder() as forward:
        y = (a @ b).relu() + 1
    with Recorder() as backward:
        y.sum().backward()
    assert [len(forward.calls), len(backward.calls)] == [1, 2]


def test_operands_are_those_from_before_an_operator_wrote_to_them():
    x = torch.zeros(3)
    with Recorder() as recorder:
        x.exp_()
    (call,) = recorder.calls
    for _ in range(2):
        assert torch.equal(call(), torch.ones(3))


def test_transforms_run_over_the_last_axes():
    x = torch.randn(2, 5, 6, 3)
    with Recorder() as recorder:
        expected = torch.fft.irfft2(torch.fft.rfft2(x, dim=(1, 2)), s=(5, 6), dim=(1, 2))
    there, back = recorder.calls
    assert torch.equal(there(), torch.fft.rfft2(x.permute(0, 3, 1, 2)))
    assert torch.allclose(back(), expected.permute(0, 3, 1, 2))


def test_a_scan_is_measured_by_its_exponentials():
    workload = recorded("mamba", state_dim=3, order="row")
    with Recorder() as recorder:
        functions(workload, CPU)[BOTH]()
    sizes = [call.args[0].shape for call in recorder.calls if call.func is torch.ops.aten.exp.default]
    assert sizes.count((2, 8, 30, 3)) == 4  # two orders, forward and back


@pytest.mark.parametrize(("boundary", "method"), [("neumann", "separable"), ("periodic", "compiled")])
def test_products_are_seen_where_one_kernel_does_them(boundary, method):
    operators_seen = recorded("pde_ssm", boundary=boundary, method=method)
    with OpCounter() as counter:
        functions(operators_seen, CPU)[FORWARD]()
    assert counter.by_op["aten::bmm"] > 0


def test_a_mixer_without_any_is_one_line():
    with pytest.raises(InputError, match="bare: mixer identity has no product, transform, scan or exponential"):
        recorded("identity")


def test_an_operator_that_is_not_known_is_one_line(enter):
    class Custom(cases.Scale):
        def fast(self, u):
            return torch.ops.operator_zoo.twice_in_tests(u * self.weight)

    enter(Custom, "custom")
    with pytest.raises(InputError, match="bare: operator_zoo::twice_in_tests is not known; enter it in FORMULAS"):
        recorded("custom")
