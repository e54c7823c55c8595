import pytest
import torch

from operators.benchmark.measuring import roofline
from operators.benchmark.workload import BOTH, FORWARD, Target, Workload, functions
from tests.operators.benchmark.cases import CPU


@pytest.mark.parametrize(
    ("flops", "moved", "expected"),
    [(2e9, 1e6, 2.0), (1e6, 5e8, 5.0), (1e9, 1e8, 1.0)],
    ids=["by arithmetic", "by traffic", "both"],
)
def test_attainable_time(flops, moved, expected):
    assert roofline.attainable(flops, moved, rate=1e9, bandwidth=1e8) == expected


def test_traffic_counts_everything_once_and_the_backward_pass_on_top():
    x, weight, constant, y = torch.zeros(10), torch.zeros(3), torch.zeros(5), torch.zeros(7, dtype=torch.bfloat16)
    workload = Workload(lambda: y, (x,), (weight,), constants=(constant,))
    assert roofline.traffic(workload, y, FORWARD) == 40 + 12 + 20 + 14
    # Again: x, weight, constant; the gradient of y; those of x and weight, written.
    assert roofline.traffic(workload, y, BOTH) == 86 + (40 + 12 + 20) + 14 + (40 + 12)


def test_a_backward_pass_is_two_products_for_each_of_the_forward_pass():
    assert roofline.flops(100, FORWARD) == 200
    assert roofline.flops(100, BOTH) == 600


def test_limits_are_rates_of_the_ceilings(hurried):
    assert roofline.limits({"matrix product": 2.0, "copy": 4.0}, CPU) == (2 * 32**3 / 2, 2 * (1 << 14) / 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ceilings_do_what_they_are_counted_for(hurried, dtype):
    place = Target("cpu", dtype)
    made = roofline.ceilings(place)
    product = functions(made["matrix product"], place)[FORWARD]()
    a, b = made["matrix product"].inputs
    assert a.shape == b.shape == (32, 32)
    assert str(product.dtype) == f"torch.{dtype}"
    torch.testing.assert_close(product, a @ b)
    copied = functions(made["copy"], place)[FORWARD]()
    assert copied.nbytes == 1 << 14
    assert copied.data_ptr() != made["copy"].inputs[0].data_ptr()
