"""The moving average of weights in half precision."""

import types

import pytest
import torch
from lightning.pytorch import LightningModule

from tasks.run.callbacks import Averaging


class Weight(LightningModule):
    def __init__(self, dtype):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, dtype=dtype))


def averaging(model):
    trainer = types.SimpleNamespace(strategy=types.SimpleNamespace(root_device=torch.device("cpu")), global_step=0)
    callback = Averaging(0.9999)
    callback.setup(trainer, model, "fit")
    return callback, trainer


def train(callback, trainer, model, steps):
    for _ in range(steps):
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, None, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_small_steps_add_up(dtype):
    model = Weight(dtype)
    callback, trainer = averaging(model)
    train(callback, trainer, model, 1)
    trainer.global_step = 200_000  # where the decay is at its limit
    with torch.no_grad():
        model.weight.fill_(1.2)
    train(callback, trainer, model, 5000)
    aim = model.weight[0].item()
    callback.on_validation_epoch_start(trainer, model)
    shown = model.weight.detach().clone()
    assert shown.dtype == dtype
    assert torch.allclose(shown.double(), torch.tensor(aim - (aim - 1) * 0.9999**5000, dtype=torch.float64), atol=4e-3)
    callback.on_validation_epoch_end(trainer, model)
    assert (model.weight == aim).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_average_goes_on_from_a_checkpoint_bit_by_bit(dtype):
    def start():
        model = Weight(dtype)
        return model, *averaging(model)

    def checkpoint(model, callback, trainer):
        content = {"state_dict": {name: value.clone() for name, value in model.state_dict().items()}}
        callback.on_save_checkpoint(trainer, model, content)
        return content

    model, callback, trainer = start()
    train(callback, trainer, model, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([1.2, -0.3, 0.017]))
    train(callback, trainer, model, 7)
    callback.on_validation_epoch_start(trainer, model)  # evaluation rounds what the model sees, not what is kept
    callback.on_validation_epoch_end(trainer, model)
    saved = checkpoint(model, callback, trainer)
    assert saved["state_dict"]["weight"].dtype == saved["current_model_state"]["weight"].dtype == dtype

    other, resumed, clock = start()
    other.load_state_dict(saved["state_dict"])
    resumed.on_load_checkpoint(clock, other, saved)
    resumed.load_state_dict(callback.state_dict())
    clock.global_step = trainer.global_step
    for run in ((callback, trainer, model), (resumed, clock, other)):
        train(*run, 5)
    first, second = checkpoint(model, callback, trainer), checkpoint(other, resumed, clock)
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert first[key].keys() == second[key].keys()
        assert all(torch.equal(first[key][name], second[key][name]) for name in first[key])
