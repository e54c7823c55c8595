from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from operators import InputError
from tasks import export
from tasks.system import checkpoint
from tests.tasks.conftest import Fit


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.safetensors"
    export.export(finished / "checkpoints" / "best.ckpt", path)
    return path


def reference(ckpt: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load(ckpt)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def test_loaded_model_gives_the_same_bits(finished: Path, exported: Path) -> None:
    model = export.load(exported)
    assert not model.training
    state = reference(finished / "checkpoints" / "best.ckpt")
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
    x = torch.randn(3, 1, 28, 28)
    y = model(x)
    for parameter in model.parameters():
        assert parameter.requires_grad
    model.load_state_dict(state)
    assert torch.equal(y, model(x))


def test_predictions_of_the_run_are_repeated(finished: Path, exported: Path) -> None:
    import numpy as np

    from tasks.data import create

    model = export.load(exported)
    data = create("fashion_mnist_mini", batch_size=32)
    batch = next(iter(data.test_dataloader()))
    with np.load(finished / "predictions.npz") as found, torch.inference_mode():
        assert torch.equal(model(batch["image"]), torch.from_numpy(found["logits"][:32]))


def test_file_says_what_it_is(finished: Path, exported: Path) -> None:
    facts = export.describe(exported)
    assert facts["version"] == export.VERSION
    assert facts["config"]["mixer"]["name"] == "pool"
    assert facts["data"]["image_size"] == [28, 28]
    assert facts["data"]["mean"] == [0.286]
    assert "val/accuracy" in facts["scores"]


def test_average_and_generators_are_exported(fit: Fit, tmp_path: Path) -> None:
    more = ("optimizer.lr=0.01", "optimizer.warmup=0", "sample.n=4", "task.network=null", "trainer.test=false")
    fit("run", "task=generation", "trainer.ema=0.5", "model.match={params: 30K}", *more)
    ckpt = tmp_path / "run" / "checkpoints" / "last.ckpt"
    export.export(ckpt, tmp_path / "g.safetensors")
    model = export.load(tmp_path / "g.safetensors")
    content = torch.load(ckpt, weights_only=True)
    average, current = content["state_dict"], content["current_model_state"]
    own = model.state_dict()
    assert all(torch.equal(own[name], average[f"model.{name}"]) for name in own)
    assert any(not torch.equal(own[name], current[f"model.{name}"]) for name in own)
    x, time, label = torch.randn(2, 1, 28, 28), torch.rand(2), torch.tensor([1, 10])
    assert model(x, time, label).shape == x.shape


def test_half_precision_stays_what_it_was(fit: Fit, tmp_path: Path) -> None:
    fit("run", "trainer.precision=bf16-true", "trainer.max_steps=1")
    export.export(tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "half.safetensors")
    model = export.load(tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(torch.randn(1, 1, 28, 28, dtype=torch.bfloat16)).dtype == torch.bfloat16


def broken(kind: str, exported: Path, path: Path) -> None:
    weights, facts = load_file(exported), export.describe(exported)
    if kind == "truncated":
        path.write_bytes(exported.read_bytes()[:-100])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("weights")
    elif kind == "foreign":
        save_file(weights, path)
    elif kind == "later":
        save_file(weights, path, metadata={export.KEY: json.dumps({**facts, "version": 2})})
    elif kind == "another model":
        facts["config"]["model"]["dim"] = 24
        save_file(weights, path, metadata={export.KEY: json.dumps(facts)})
    elif kind == "without data":
        save_file(weights, path, metadata={export.KEY: json.dumps({"version": 1, "config": facts["config"]})})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", "does not exist"),
        ("truncated", "damaged, cut off"),
        ("empty", "damaged, cut off"),
        ("text", "damaged, cut off"),
        ("foreign", "was not exported by this program"),
        ("later", "version 2"),
        ("another model", "is of another model: for "),
        ("without data", "does not say which model"),
    ],
)
def test_damaged_or_foreign_file_is_refused_in_one_line(
    exported: Path, tmp_path: Path, kind: str, expected: str
) -> None:
    path = tmp_path / "x.safetensors"
    broken(kind, exported, path)
    with pytest.raises(InputError) as caught:
        export.load(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_command_writes_a_new_file_or_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, out = str(finished / "checkpoints" / "best.ckpt"), tmp_path / "model.safetensors"
    assert export.main([best, str(out)]) == 0
    assert "MB" in capsys.readouterr().out
    before = out.read_bytes()
    for arguments, expected in (
        ([best, str(out)], "exists"),
        ([str(tmp_path / "no.ckpt"), str(tmp_path / "other.safetensors")], "does not exist"),
        ([best, str(tmp_path / "no" / "other.safetensors")], "is not a directory"),
        ([best, str(tmp_path)], "is a directory"),
        ([best, ""], "is a directory"),
        ([best], "usage"),
    ):
        assert export.main(arguments) == 2
        err = capsys.readouterr().err
        assert expected in err
        assert err.count("\n") == 1
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("model.onnx", "model.safetensors"),
        ("model", "model.safetensors"),
        ("model.v2.pt", "model.v2.safetensors"),
        ("model.safetensors.gz", "model.safetensors"),
        ("model.SAFETENSORS", "model.safetensors"),
    ],
)
def test_a_name_of_another_format_is_refused_before_anything_is_read(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        export.export(tmp_path / "no.ckpt", tmp_path / name)
    assert str(caught.value) == (
        f"{tmp_path / name} must end in .safetensors, the only format written; did you mean '{tmp_path / meant}'?"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_an_export_has_the_mode_of_any_file(finished: Path, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        export.export(finished / "checkpoints" / "best.ckpt", tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o666 & ~umask


def test_every_file_of_a_run_has_the_mode_of_any_file(finished: Path) -> None:
    ordinary = finished / "ordinary"
    ordinary.touch()
    written = [path for path in finished.rglob("*") if path.is_file()]
    modes = {str(path.relative_to(finished)): oct(stat.S_IMODE(path.stat().st_mode)) for path in written}
    ordinary.unlink()
    assert {"metrics.json", "config.yaml", "provenance.json", "predictions.npz", "checkpoints/best.ckpt"} <= set(modes)
    assert {name: mode for name, mode in modes.items() if mode != modes["ordinary"]} == {}
