import pytest
import torch

import operators
from operators.benchmark.bare import bare_arms, products, transforms
from operators.benchmark.workload import BOTH, FORWARD, Shape, functions
from operators.pde.propagators import axis_matrices, summed_transfer
from operators.testing.checks import assert_close
from operators.testing.counter import OpCounter, count_macs
from tests.operators.benchmark.cases import CPU

SHAPE = Shape(batch=2, height=5, width=6, dim=4)


@pytest.mark.parametrize("arm", bare_arms([1, 3]), ids=lambda arm: arm.label)
def test_costs_are_those_that_a_counter_sees(arm):
    workload = arm.build(SHAPE, CPU)
    assert workload.macs == pytest.approx(count_macs(functions(workload, CPU)[FORWARD]))


def test_labels_and_states():
    labels = [arm.label for arm in bare_arms([4, 1, 4])]
    names = ["products[state=1]", "products[state=4]", "fft", "projection", "exp", "scan"]
    assert labels == [f"bare {name}" for name in names]


@pytest.mark.parametrize("states", [1, 3])
def test_six_products_with_gradients(states):
    workload = products(SHAPE, "cpu", states)
    # Four more products, each of the size of one of the two.
    with OpCounter() as counter:
        functions(workload, CPU)[BOTH]()
    assert counter.macs == pytest.approx(3 * workload.macs)


@pytest.mark.parametrize("states", [1, 3])
def test_the_products_are_those_of_the_separable_mixer(states):
    mixer = operators.create("pde_ssm", 4, grid=(5, 6), shell=operators.BARE, method="separable", state=states)
    core, x = mixer.core, torch.randn(2, 5, 6, 4)
    with torch.no_grad():
        coefficients = core._in_pixels(core.solve_coefficients(x, None), 5, 6)
        rows, columns = axis_matrices(coefficients, 5, 6, core.call.boundary)
        workload = products(SHAPE, "cpu", states)
        workload.parameters[0].copy_((rows * core.readout[..., None, None]).flatten(1, 2))
        workload.parameters[1].copy_(columns.mT.flatten(0, 1))
        workload.inputs[0].copy_(x.permute(3, 1, 0, 2).flatten(2))
        mixed = workload.call().view(4, 5, 2, 6).permute(2, 1, 3, 0)
        assert_close(mixed + core.skip * x, mixer(x), 1e-5, "output")


def test_the_transforms_are_those_of_the_mixer_by_fft():
    mixer = operators.create("pde_ssm", 4, grid=(5, 6), shell=operators.BARE, method="fft")
    core, x = mixer.core, torch.randn(2, 5, 6, 4)
    with torch.no_grad():
        coefficients = core._in_pixels(core.solve_coefficients(x, None), 5, 6)
        weight = core.readout.unflatten(0, (core.groups, -1))
        response = summed_transfer(coefficients, weight, (5, 6), core.call.boundary, core.call.forcing)
        workload = transforms(SHAPE, "cpu")
        workload.parameters[0].copy_(response.flatten(-4, -3))
        workload.inputs[0].copy_(x.permute(0, 3, 1, 2))
        assert_close(workload.call().permute(0, 2, 3, 1) + core.skip * x, mixer(x), 1e-5, "output")
