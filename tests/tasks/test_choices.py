import inspect
from dataclasses import fields

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from tasks import choices
from tasks.configuration import TrainerConfig
from tasks.flow import paths
from tasks.measures import networks

OURS = {"callbacks", "logger", "plugins", "default_root_dir", "gradient_clip_val", "accumulate_grad_batches"}
OURS |= {"use_distributed_sampler", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"}
OURS |= {"num_sanity_val_steps", "log_every_n_steps", "fast_dev_run", "barebones"}
"""What `tasks.execute` fills in itself, under these or other names."""


def test_words_are_those_of_the_code():
    assert tuple(paths.PATHS) == choices.PATHS
    assert tuple(networks.names()) == choices.NETWORKS


def test_words_are_those_of_lightning():
    """Where an upgrade of Lightning brings others, `tasks.choices` has to follow."""
    assert {"auto", "gpu", *AcceleratorRegistry.available_accelerators()} == set(choices.ACCELERATORS)
    apart = {"fork", "spawn", "notebook"}
    ours = {name for name in StrategyRegistry.available_strategies() if not apart & {*name.split("_")}}
    assert ours | {"auto"} == set(choices.STRATEGIES)
    own = {field.name for field in fields(TrainerConfig)}
    assert set(inspect.signature(Trainer).parameters) - OURS - own == choices.LIGHTNING
