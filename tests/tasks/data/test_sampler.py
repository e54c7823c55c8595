"""Which samples make up which batch: across ranks, epochs, workers and interruptions."""

import itertools

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import Dataset

from operators.errors import InputError
from tasks.data.sampler import EvalBatches, TrainBatches, TrainLoader


def index(batches):
    return [[i for _, i in batch] for batch in batches]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_out_the_batches_of_one_process(world):
    whole = index(TrainBatches(50, 8, seed=3))
    ranks = [index(TrainBatches(50, 8, 3, rank, world)) for rank in range(world)]
    assert len(whole) == 50 // 8
    for step, batch in enumerate(whole):
        assert flat(rank[step] for rank in ranks) == batch
    assert len(set(flat(whole))) == 48


def test_the_order_is_keyed_by_seed_and_epoch():
    batches = TrainBatches(64, 8, seed=0)
    first = list(batches)
    assert list(batches) == first
    batches.sampler.set_epoch(1)
    second = list(batches)
    assert index(second) != index(first)
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    batches.sampler.set_epoch(0)
    assert list(batches) == first
    assert index(TrainBatches(64, 8, seed=1)) != index(first)


@pytest.mark.parametrize(("batch", "world", "message"), [(10, 4, "divisible by the 4"), (65, 1, "at most 64")])
def test_refused_batches(batch, world, message):
    with pytest.raises(InputError, match=message):
        TrainBatches(64, batch, 0, 0, world)


@pytest.mark.parametrize(("size", "batch", "world"), [(100, 32, 1), (101, 32, 2), (97, 32, 3), (33, 16, 2), (5, 2, 4)])
def test_evaluation_sees_every_image_once(size, batch, world):
    ranks = [EvalBatches(size, batch, rank, world) for rank in range(world)]
    assert flat(flat(index(rank)) for rank in ranks) == list(range(size))
    assert len({len(rank) for rank in ranks}) == 1
    for rank in ranks:
        assert len(list(rank)) == len(rank)
        assert all(0 < len(b) <= max(2, batch // world) for b in rank)


def test_more_ranks_than_images():
    with pytest.raises(InputError, match="3 images"):
        EvalBatches(3, 4, 0, 4)


class Echo(Dataset):
    """Hands back the pairs."""

    def __len__(self):
        return 40

    def __getitems__(self, pairs):
        return torch.tensor(pairs)


def echo(batch):
    return batch


def loader(workers=0):
    options = {"persistent_workers": True, "prefetch_factor": 2} if workers else {}
    return TrainLoader(Echo(), batch_sampler=TrainBatches(40, 8, 0), num_workers=workers, collate_fn=echo, **options)


class Recorder(lightning.LightningModule):
    """Records the batches it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch):
        self.seen.append(batch.tolist())
        return self.weight**2

    def validation_step(self, batch):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet(test):
    """Silence what Lightning says about its own use of torch, few workers, and a resumed run without its callback."""
    for message in (".*LeafSpec", ".*does not have many workers", ".*callbacks used to create the checkpoint"):
        test = pytest.mark.filterwarnings(f"ignore:{message}")(test)
    return test


def fit(tmp_path, workers=0, *, ckpt=None, callbacks=(), **limits):
    model = Recorder()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        default_root_dir=tmp_path,
        **limits,
    )
    trainer.fit(model, loader(workers), [torch.zeros(1)], ckpt_path=ckpt, weights_only=True if ckpt else None)
    return model.seen, trainer


def expected(epochs):
    batches = TrainBatches(40, 8, 0)
    seen = []
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        seen += [[list(pair) for pair in batch] for batch in batches]
    return seen


@quiet
@pytest.mark.parametrize("workers", [0, 1])
def test_lightning_tells_the_sampler_its_epoch(tmp_path, workers):
    seen, _ = fit(tmp_path, workers, max_epochs=3)
    assert seen == expected(3)


@quiet
def test_stopping_by_steps_closes_the_epoch(tmp_path):
    # Lightning counts an epoch cut short by max_steps as done: what follows is the next one, from its start.
    first, trainer = fit(tmp_path, max_steps=3)
    trainer.save_checkpoint(tmp_path / "stop.ckpt")
    rest, _ = fit(tmp_path, max_epochs=3, ckpt=tmp_path / "stop.ckpt")
    assert first + rest == expected(3)[:3] + expected(3)[5:]


@quiet
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("moment", ["train step", "validation", "epoch end"])
def test_a_run_resumes_from_any_checkpoint(tmp_path, moment, workers):
    options = {
        "train step": {"every_n_train_steps": 4},
        "validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
        "epoch end": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    }[moment]
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **options)
    fit(tmp_path, workers, max_epochs=2, callbacks=[keep])
    saved = sorted(tmp_path.glob("*.ckpt"))
    assert len(saved) == 2
    for path in saved:
        step = int(path.stem.removeprefix("step="))
        rest, _ = fit(tmp_path, workers, max_epochs=3, ckpt=path)
        assert rest == expected(3)[step:], path.name


def test_a_started_epoch_starts_over_for_a_new_iterator():
    plain = loader()
    first = next(iter(plain))
    assert torch.equal(next(iter(plain)), first)
    assert plain.state_dict() == {"epoch": 0, "batch": 1}
    plain.load_state_dict({"epoch": 2, "batch": 3})
    plain.batch_sampler.set_epoch(2)
    assert np.array_equal([b.tolist() for b in plain], expected(3)[13:])
    assert plain.state_dict() == {"epoch": 3, "batch": 0}
