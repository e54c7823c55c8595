"""Recipes for real data: each with any mixer; trainer=smoke shrinks all of them to a run of seconds."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import datasets
import pytest

from tasks import data
from tasks.config.composition import compose
from tasks.data.sources import imagenet
from tasks.run.execute import execute

RECIPES = {
    "imagenet_classification": ("vit_small", 224),
    "imagenet_generation": ("dit_b", 256),
    "cifar10_classification": ("vit_tiny", None),
    "cifar10_generation": ("dit_s", None),
}
MIXERS = ("pde_ssm", "attention", "mamba", "pom")
DATA = Path(os.environ.get("OPERATOR_ZOO_DATA", "/nowhere"))
real = pytest.mark.skipif(
    not (DATA / "imagenet-sample").is_dir() or not (DATA / "cifar10").is_dir(),
    reason="OPERATOR_ZOO_DATA has no imagenet-sample and cifar10",
)
COVERING = [
    ("imagenet_classification", "parquet", "attention"),
    ("imagenet_generation", "folder", "pom"),
    ("cifar10_classification", "parquet", "mamba"),
    ("cifar10_generation", "parquet", "pde_ssm"),
]
"""Every recipe, both tasks of a data set, both layouts of ImageNet; the slow test has every mixer."""
FULL = [
    (recipe, layout, mixer)
    for recipe in RECIPES
    for layout in (("folder", "parquet") if recipe.startswith("imagenet") else ("parquet",))
    for mixer in MIXERS
]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[str]]:
    """Overrides that say where the data lies, by data set and layout."""
    root = tmp_path_factory.mktemp("imagenet")
    labels = {wnid: label for label, wnid in enumerate(imagenet.classes())}
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": labels[path.parent.name]}
        for path in sorted((DATA / "imagenet-sample" / "val").glob("*/*"))
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(str(root / "validation-00000-of-00001.parquet"))
    splits = "data.splits={train: val, val: val}"
    return {
        ("imagenet", "folder"): [f"data.root={DATA / 'imagenet-sample'}", splits],
        ("imagenet", "parquet"): [f"data.root={root}", splits],
        ("cifar10", "parquet"): [f"data.root={DATA / 'cifar10'}"],
    }


@pytest.fixture
def smoke(roots: dict[tuple[str, str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    datasets.disable_progress_bars()

    def run(recipe: str, layout: str, mixer: str) -> None:
        name, _, task = recipe.partition("_")
        if recipe == "imagenet_generation" and importlib.util.find_spec("diffusers") is None:
            pytest.skip("diffusers is not installed")
        overrides = [f"experiment={recipe}", f"mixer={mixer}", "trainer=smoke", *roots[name, layout]]
        metrics = execute(compose([*overrides, "trainer.accelerator=cpu", "logger=none"]), tmp_path / "run")
        assert metrics["status"] == "ok"
        assert (metrics["task"], metrics["data"], metrics["mixer"]) == (task, name, mixer)
        assert metrics["test/loss"] > 0
        assert (tmp_path / "run" / ("predictions.npz" if task == "classification" else "samples/sheet.png")).is_file()

    return run


@real
@pytest.mark.parametrize(("recipe", "layout", "mixer"), COVERING)
def test_recipes_run(recipe: str, layout: str, mixer: str, smoke: Any) -> None:
    smoke(recipe, layout, mixer)


@real
@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "layout", "mixer"), [case for case in FULL if case not in COVERING])
def test_all_recipes_run(recipe: str, layout: str, mixer: str, smoke: Any) -> None:
    smoke(recipe, layout, mixer)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_leaves_the_mixer_open(recipe: str) -> None:
    model, resolution = RECIPES[recipe]
    default = compose([f"experiment={recipe}"])
    assert default["mixer"]["name"] == compose([])["mixer"]["name"]
    for mixer in ("pde_ssm", "attention"):
        config = compose([f"experiment={recipe}", f"mixer={mixer}"])
        assert config["mixer"]["name"] == mixer
        assert ("pde" in config) == (mixer == "pde_ssm")
        same = [{key: c[key] for key in c if key not in ("mixer", "pde")} for c in (config, default)]
        assert same[0] == same[1]
    name, _, task = recipe.partition("_")
    assert (default["task"]["name"], default["data"]["name"]) == (task, name)
    assert (default["model"]["name"], default["data"]["resolution"]) == (model, resolution)


def test_published_sizes_fit_together() -> None:
    deit = compose(["experiment=imagenet_classification"])
    assert deit["optimizer"]["lr"] == pytest.approx(5e-4 * deit["data"]["batch_size"] / 512)
    sit = compose(["experiment=imagenet_generation"])
    images = 1_281_167 - 10_000  # to validate on
    assert sit["trainer"]["max_steps"] / (images // sit["data"]["batch_size"]) == pytest.approx(80, abs=1)
    assert data.create("imagenet", root=None, pipeline="generation").image_size == (256, 256)


@pytest.mark.parametrize("recipe", [*RECIPES, None])
def test_smoke_wins_over_a_recipe_and_the_command_line_over_both(recipe: str | None) -> None:
    base = [f"experiment={recipe}"] if recipe else []
    config = compose([*base, "trainer=smoke"])
    assert (config["model"]["dim"], config["model"]["depth"]) == (48, 3)
    assert (config["data"]["batch_size"], config["data"]["num_workers"]) == (8, 0)
    assert (config["trainer"]["max_epochs"], config["trainer"]["max_steps"]) == (1, 3)
    assert config["optimizer"]["warmup"] == 0
    if config["task"]["name"] == "generation":
        assert (config["sample"]["n"], config["sample"]["steps"]) == (8, 2)
        assert config["task"]["autoencoder"] == ("random" if recipe == "imagenet_generation" else None)
    given = ["model.dim=64", "data.batch_size=16", "trainer.max_steps=5", "optimizer.warmup=1"]
    for order in ([*base, "trainer=smoke", *given], [*given, "trainer=smoke", *base]):
        config = compose(order)
        assert (config["model"]["dim"], config["data"]["batch_size"]) == (64, 16)
        assert (config["trainer"]["max_steps"], config["optimizer"]["warmup"]) == (5, 1)
    if recipe == "imagenet_generation":
        assert compose([*base, "trainer=smoke", "task.autoencoder=DIR"])["task"]["autoencoder"] == "DIR"
