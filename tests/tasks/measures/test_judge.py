"""The judge: trained on real images only, kept, the same every time."""

import pytest
import torch

from operators.errors import InputError
from tasks import data
from tasks.measures import judge, pixels
from tests.tasks.measures.toys import toy_data


def held_out(source):
    return torch.from_numpy(source.splits.test.images), torch.from_numpy(source.splits.test.labels)


@pytest.mark.usefixtures("short")
def test_it_is_deterministic_kept_and_leaves_generators_alone(toy, cache, monkeypatch):
    before = torch.get_rng_state()
    with torch.inference_mode():  # as in a Lightning test epoch
        first = judge.load(toy)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    (file,) = (cache / "judge").iterdir()
    file.unlink()
    torch.manual_seed(5)
    again = judge.load(toy)

    def refuse(*arguments):
        raise AssertionError("trained, though it is in the cache")

    monkeypatch.setattr(judge, "_trained", refuse)
    read = judge.load(toy)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, read.state_dict()[name]), name
    assert read.accuracy(*held_out(toy)) > 0.9


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("change", ["data", "version", "resolution"])
def test_another_key_trains_anew(toy, cache, monkeypatch, change):
    judge.load(toy)
    if change == "data":
        toy = toy_data(sizes=(299, 60, 120))
    elif change == "version":
        monkeypatch.setattr(judge, "VERSION", "another")
    else:
        toy = toy_data(resolution=6)
    judge.load(toy)
    assert len(list((cache / "judge").iterdir())) == 2


@pytest.mark.usefixtures("short")
def test_it_never_sees_held_out_images(toy, monkeypatch):
    seen = []
    monkeypatch.setattr(
        pixels, "real", lambda source, split, real=pixels.real: seen.append(split) or real(source, split)
    )
    judge.load(toy)
    assert seen == ["train"]


@pytest.mark.usefixtures("short")
def test_wrong_channels_and_classes_are_refused(toy):
    model = judge.load(toy)
    images, labels = held_out(toy)
    for wrong, message in (
        ((images.expand(-1, 3, -1, -1), labels), "1 channel"),
        ((images, labels + 1), r"0 … 2"),
        ((images, labels - 1), r"0 … 2"),
        ((images, labels[:-1]), "one each"),
    ):
        with pytest.raises(InputError, match=message):
            model.correct(*wrong)


def test_large_images_are_reduced():
    model = judge.Judge(1, 2).eval()
    assert model(torch.rand(2, 1, 64, 48)).shape == (2, 2)
    flat = torch.full((1, 1, 64, 64), 0.3)
    assert torch.allclose(model(flat), model(flat[..., :32, :32]), atol=1e-5)


@pytest.mark.slow
def test_it_is_good_on_the_embedded_data():
    source = data.create("fashion_mnist_mini")
    assert judge.load(source).accuracy(*held_out(source)) > 0.85
