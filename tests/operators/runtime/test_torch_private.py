"""Torch's private interfaces are there and do what is asked of them; each test is named after one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from operators.runtime import torch_private


def test_functorch_transforms_and_their_interpreter_stack() -> None:
    seen: list[tuple[bool, bool]] = []

    def look(x: Tensor) -> Tensor:
        seen.append((torch_private.transforms_active(), torch_private.only_vmap_active()))
        return x.sum()

    look(torch.ones(2))
    torch.vmap(look)(torch.ones(2, 2))
    torch.func.grad(look)(torch.ones(2))
    assert seen == [(False, True), (True, True), (True, False)]


def test_current_level_of_forward_mode() -> None:
    assert torch_private.forward_levels() == 0
    with forward_ad.dual_level():
        assert torch_private.forward_levels() == 1
    assert torch_private.forward_levels() == 0


def test_fake_tensor_mode_and_how_modes_are_left() -> None:
    with torch_private.FakeTensorMode():
        fake = torch.ones(2)
        with torch_private.without_modes():
            real = torch.ones(2)
    assert isinstance(fake, torch_private.FakeTensor)
    assert not isinstance(real, torch_private.FakeTensor)
    active: list[bool] = []

    def inside(x: Tensor) -> Tensor:
        with torch_private.without_modes():
            active.append(torch_private.transforms_active())
        return x

    torch.vmap(inside)(torch.ones(2))
    assert active == [False]


class Names(torch_private.TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append((torch_private.operator_name(func), torch_private.writes_in_place(func)))
        return func(*args, **(kwargs or {}))


def test_dispatch_mode_and_schema_of_operators() -> None:
    x = torch.ones(2)
    with Names() as names:
        x.add_(x.exp())
    assert names.seen == [("aten::exp", False), ("aten::add_", True)]


def test_tree_leaves() -> None:
    assert torch_private.tree_leaves({"a": [1, (2, 3)], "b": 4}) == [1, 2, 3, 4]


def test_cdata_of_storages() -> None:
    x, y = torch.ones(4), torch.ones(4)
    assert torch_private.storage_key(x.untyped_storage()) == torch_private.storage_key(x[1:].untyped_storage())
    assert torch_private.storage_key(x.untyped_storage()) != torch_private.storage_key(y.untyped_storage())


def test_foreach_lerp() -> None:
    values = [torch.zeros(3), torch.ones(2)]
    torch_private.lerp_(values, [torch.ones(3), torch.zeros(2)], 0.25)
    assert torch.equal(values[0], torch.full((3,), 0.25))
    assert torch.equal(values[1], torch.full((2,), 0.75))


MARKS = """
import sys, torch
from operators.runtime.torch_private import disable_compiler, mark_constant
assert "torch._dynamo" not in sys.modules
constant, disabled = mark_constant(lambda: 3), disable_compiler(lambda: 4)
assert "torch._dynamo" not in sys.modules
public = torch.compiler.assume_constant_result(lambda: 3)
assert [key for key in vars(public) if "dynamo" in key] == ["_dynamo_marked_constant"] == list(vars(constant))
assert disabled() == 4
assert "torch._dynamo" in sys.modules
"""


def test_marks_for_the_compiler_are_its_own_and_do_not_import_it() -> None:
    done = subprocess.run([sys.executable, "-c", MARKS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Numbers(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        time.sleep(0.01)
        return index


def test_workers_of_a_loader() -> None:
    loader: DataLoader[int] = DataLoader(Numbers(), num_workers=1, persistent_workers=True)
    next(iter(loader))
    (worker,) = torch_private.take_workers(loader)
    worker.kill()
    worker.join(20)  # type: ignore[attr-defined]
    # Else torch's handler of SIGCHLD would take the death of the worker for a failure of the next loader.
    assert next(iter(DataLoader(Numbers()))) == 0
    assert torch_private.take_workers(loader) == []


def test_file_writer_of_tensorboard(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        torch_private.write_settings(writer, {"lr": 0.1}, {"study/x": 1.0})
    (path,) = tmp_path.iterdir()
    assert b"_hparams_" in path.read_bytes()


@pytest.mark.parametrize(
    ("owner", "name"),
    [(torch.ops.aten.mm.default, "_schema"), (torch.UntypedStorage(1), "_cdata"), (DataLoader([1]), "_iterator")],
    ids=["_schema", "_cdata", "_iterator"],
)
def test_attribute_is_there(owner: object, name: str) -> None:
    assert hasattr(owner, name), f"torch has no {type(owner).__name__}.{name} any more"


def test_functional_operators_of_those_in_place() -> None:
    add, exp = torch.ops.aten.add.Tensor, torch.ops.aten.exp_.default
    assert torch_private.functional(add) is add
    assert torch_private.functional(exp) is torch.ops.aten.exp.default
    assert torch_private.writes_in_place(exp)


def test_tree_map() -> None:
    assert torch_private.tree_map(lambda value: 2 * value, ([1], {"a": 2})) == ([2], {"a": 4})
