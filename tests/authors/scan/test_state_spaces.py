"""Time-invariant state spaces against their authors' code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import built, empty, images
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM, GRID = 6, (5, 7)
BARE = operators.BARE
LAYER: dict[str, Any] = {
    "bidirectional": True,
    "activation": None,
    "transposed": False,
    "d_state": 64,
    "real_transform": "exp",
    "dt_transform": "exp",
    "verbose": False,
}
"""Of the authors' general layer: no activation, sequences (B, N, D), and logarithms for rates and steps."""


@contextmanager
def doubles() -> Iterator[None]:
    """Where a module makes numbers as it goes, which would be of single precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@cache
def s4_module() -> Any:
    stubs = empty("pytorch_lightning.utilities")
    module: Any = Source.of("s4").load("s4", root="models/s4", stubs=stubs)
    module.has_pykeops = module.has_cuda_extension = False
    return module


def sequence(function: Any) -> Any:
    """A function of sequences (B, N, D), of whose outputs the first counts, as one of grids."""
    return lambda x: function(x.flatten(1, 2))[0].reshape(x.shape)


def readouts(kernel: Any, dim: int) -> Tensor:
    """C times B of a diagonal kernel of theirs, whose B is shared by channels in turn."""
    B, C = torch.view_as_complex(kernel.B), torch.view_as_complex(kernel.C)
    return torch.view_as_real(C * B.repeat(1, dim // B.shape[1], 1))


def diagonal(place: str, kernel: Any, dim: int = DIM) -> dict[str, Tensor]:
    """The parameters of our diagonal system: the authors' frequencies are negative."""
    weights = {
        "log_step": kernel.inv_dt[:, 0],
        "A_log": kernel.A_real,
        "A_imag": -kernel.A_imag,
        "C": readouts(kernel, dim),
    }
    return {f"{place}.{name}": each for name, each in weights.items()}


def test_s4d() -> None:
    """Up to its activation and last projection, one way."""
    module: Any = Source.of("s4d").load("s4d", root="models/s4", stubs={"src.models.nn": {"DropoutNd": nn.Identity}})
    theirs = randomised(module.S4D(DIM, d_state=64), scale=0.1)
    theirs.activation = theirs.output_linear = nn.Identity()
    kernel = theirs.kernel
    ours = built("s4d", DIM, shell=BARE, bidirectional=False)
    weights = {"log_step": kernel.log_dt, "A_log": kernel.log_A_real, "A_imag": kernel.A_imag, "C": kernel.C[None]}
    fill(ours, {f"core.systems.0.{name}": each for name, each in weights.items()} | {"core.D": theirs.D})
    own = ours.core.systems[0]
    same = [
        (own.log_step, kernel.log_dt),
        (own.A_log, kernel.log_A_real),
        (own.A_imag, kernel.A_imag),
        (own.C, kernel.C),
        (ours.core.D, theirs.D),
    ]
    compare("s4d", ours, lambda x: theirs(x.flatten(1, 2).mT)[0].mT.reshape(x.shape), images(*GRID, dim=DIM), same=same)


@pytest.mark.parametrize("start", ["lin", "inv", "real", "legs"])
@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_s4d__general(start: str, rule: str) -> None:
    """Both ways, of the code of S4: its starts and rules, and matrices that channels share."""
    made = s4_module().FFTConv(DIM, mode="diag", init=f"diag-{start}", disc=rule, n_ssm=3, **LAYER)
    theirs = randomised(made, scale=0.1)
    kernel = theirs.kernel
    ours = built("s4d", DIM, shell=BARE, start=start, rule=rule, n_ssm=3)
    fill(ours, diagonal("core.systems.0", kernel) | {"core.D": theirs.D[0]})
    same = [(ours.core.systems[0].A_log, kernel.A_real), (ours.core.D, theirs.D)]
    compare("s4d", ours, sequence(theirs), images(*GRID, dim=DIM), same=same)


@pytest.mark.parametrize(("length", "shared"), [(35, 3), (50, 1), (16, 6)])
def test_s4(length: int, shared: int) -> None:
    """Readouts are learned for a length, that of the grid and others; the authors' change as they are made longer."""
    ours = built("s4", DIM, shell=BARE, n_ssm=shared, grid=(1, length))
    with doubles():
        theirs = s4_module().FFTConv(DIM, l_max=None, mode="nplr", init="legs", n_ssm=shared, **LAYER)
        for parameter in theirs.parameters():
            parameter.data = parameter.data.double()
        randomised(theirs, scale=0.05)
        kernel = theirs.kernel
        kernel._setup_C(length)
        weights = {
            "log_step": kernel.inv_dt[:, 0],
            "A_log": kernel.A_real,
            "A_imag": -kernel.A_imag,
            "P": kernel.P[0],
            "B": kernel.B[0],
            "C": kernel.C,
        }
        fill(ours, {f"core.systems.0.{name}": each for name, each in weights.items()} | {"core.D": theirs.D[0]})
        own = ours.core.systems[0]
        same = [(own.A_log, kernel.A_real), (own.P, kernel.P), (own.B, kernel.B), (own.C, kernel.C)]
        same += [(ours.core.D, theirs.D)]
        longer = length < GRID[0] * GRID[1]
        compare("s4", ours, sequence(theirs), images(*GRID, dim=DIM), same=[] if longer else same)


@pytest.mark.parametrize(
    ("both", "rank", "shared", "rule", "limit"),
    [(True, 1, 1, "zoh", None), (False, 2, 3, "bilinear", None), (True, 3, 6, "zoh", 0.5)],
)
def test_s4nd(both: bool, rank: int, shared: int, rule: str, limit: float | None) -> None:
    """With diagonal kernels."""
    s4 = s4_module()
    module: Any = Source.of("s4nd").load(
        "src.models.sequence.modules.s4nd",
        empty=["src.models.sequence.modules"],
        stubs={
            "src.models.nn": {name: getattr(s4, name) for name in ("LinearActivation", "Activation", "DropoutNd")},
            "src.models.sequence": {"SequenceModule": nn.Module},
            "src.models.sequence.kernels": {"registry": {"diag": s4.SSMKernelDiag, "dplr": s4.SSMKernelDPLR}},
            "src.utils": {"is_list": lambda value: isinstance(value, (list, tuple))},
            "src.utils.train": {},
        },
    )
    released = {"mode": "diag", "init": "diag-lin", "dt_transform": "exp", "dt_min": 0.1, "dt_max": 1.0}
    options = {"bidirectional": both, "trank": rank, "n_ssm": shared, "disc": rule, "bandlimit": limit}
    made = module.S4ND(DIM, d_state=64, dim=2, verbose=False, transposed=False, **released, **options)
    theirs = randomised(made, scale=0.1)
    ours = built(
        "s4nd", DIM, shell=BARE, bidirectional=both, tensor_rank=rank, n_ssm=shared, rule=rule, bandlimit=limit
    )
    weights, same = {"core.D": theirs.D[0]}, [(ours.core.D, theirs.D)]
    for kernel, axis in zip(theirs.kernel, ("rows", "columns"), strict=True):
        weights |= diagonal(f"core.{axis}", kernel)
        same += [(getattr(ours.core, axis).A_log, kernel.A_real)]
    fill(ours, weights)
    compare("s4nd", ours, lambda x: theirs(x)[0].reshape(x.shape), images(*GRID, dim=DIM), same=same)


@pytest.fixture(scope="module")
def coefficients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the authors' code of 2-D SSM keeps what it has once derived with sympy."""
    return tmp_path_factory.mktemp("coefficients")


@pytest.mark.parametrize(
    ("complex_states", "directions", "shared"), [(False, 4, 1), (False, 2, 3), (True, 4, 1), (True, 2, 1)]
)
def test_ssm2d(
    complex_states: bool, directions: int, shared: int, coefficients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows squares only."""
    monkeypatch.chdir(coefficients)
    module: Any = Source.of("ssm2d").load(
        "models.mega.two_d_ssm",
        empty=["models", "models.mega"],
        stubs=empty("pandas"),
        edits={"matrix.cuda()": "matrix", "k.float()": "k", ".to('cuda')": ""},
    )
    side, states = 5, 4
    groups = directions * shared
    dim = 2 * groups
    options = SimpleNamespace(
        ndim=states,
        n_ssm=shared,
        normalize=False,
        complex_ssm=complex_states,
        directions_amount=directions,
        use_residual_inside_ssm=True,
    )
    theirs = randomised(module.TwoDimensionalSSM(dim, L=side * side, args=options))
    tables = theirs.one_matrix_only_B_with_coeffs
    theirs.one_matrix_only_B_with_coeffs = tables.to(torch.complex128 if complex_states else torch.float64)
    if not complex_states:
        theirs.powers = theirs.powers.double()
    ours = built(
        "ssm2d",
        dim,
        shell=BARE,
        directions=directions,
        n_ssm=groups,
        state_dim=states,
        complex_states=complex_states,
        residual=True,
    )

    def each_way(tensors: list[Tensor]) -> Tensor:
        return torch.stack([each.expand(directions, *each.shape) for each in tensors])

    sizes = theirs.A_radius if complex_states else theirs.A
    names = [f"A_{number}" for number in range(1, 5)]
    weights = {
        "core.A": each_way([sizes[name] for name in names]),
        "core.B": each_way([theirs.B_1, theirs.B_2]),
        "core.C": torch.stack([each.unflatten(0, (directions, dim)) for each in (theirs.C_1, theirs.C_2)]),
        "core.D": theirs.omega,
    }
    if complex_states:
        weights["core.A_angle"] = each_way([theirs.A_angle[name] for name in names])
    fill(ours, weights)
    x = images(side, side, dim=dim)
    compare("ssm2d", ours, lambda x: theirs(x.movedim(-1, 1)).movedim(1, -1), x, same=[(ours.core.D, theirs.omega)])


@pytest.mark.parametrize(("kernels", "states"), [(6, 64), (3, 8)])
def test_spacetime(kernels: int, states: int) -> None:
    """One way; neighbouring channels share a kernel."""
    module: Any = Source.of("spacetime").load(
        "model.ssm.companion",
        empty=["model", "model.ssm", "model.functional"],
        stubs={"opt_einsum": {"contract": torch.einsum}},
    )
    theirs = randomised(
        module.CompanionSSM(
            norm_order=1,
            model_dim=DIM,
            n_kernels=kernels,
            kernel_dim=states,
            head_dim=DIM // kernels,
            kernel_init="normal",
            skip_connection=True,
        )
    )
    theirs.shift_matrix, theirs.p_padding = theirs.shift_matrix.double(), theirs.p_padding.double()
    ours = built("spacetime", DIM, shell=BARE, bidirectional=False, state_dim=states, n_kernels=kernels)
    own = ours.core.systems[0]
    weights = {"a": theirs.a, "b": theirs.b, "c": theirs.c[None]}
    fill(ours, {f"core.systems.0.{name}": each for name, each in weights.items()} | {"core.D": theirs.skip})
    same = [(own.a, theirs.a), (own.b, theirs.b), (ours.core.D, theirs.skip)]
    compare("spacetime", ours, lambda x: theirs(x.flatten(1, 2)).reshape(x.shape), images(*GRID, dim=DIM), same=same)
