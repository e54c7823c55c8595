from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from operators.scan import steps
from tasks import data
from tasks.config import choices
from tasks.flow import paths
from tasks.measures import networks


def test_words_are_those_of_the_code():
    assert tuple(paths.PATHS) == choices.PATHS
    assert tuple(networks.names()) == choices.NETWORKS
    assert steps.WAYS == choices.TRANSFERS
    assert tuple(data.names()) == choices.DATA_SETS


def test_words_are_those_of_lightning():
    """Where an upgrade of Lightning brings others, `tasks.config.choices` has to follow."""
    assert {"auto", "gpu", *AcceleratorRegistry.available_accelerators()} == set(choices.ACCELERATORS)
    apart = {"fork", "spawn", "notebook"}
    ours = {name for name in StrategyRegistry.available_strategies() if not apart & {*name.split("_")}}
    assert ours | {"auto"} == set(choices.STRATEGIES)
