"""What `python -m operators test NAME` runs: the contract on that mixer, whose name is in the environment."""

from __future__ import annotations

import os

import operators
from operators.testing.cases import Case, shells
from operators.testing.contract import MixerContract
from operators.testing.properties import CardContract
from operators.testing.verdict import MIXER

_NAME = os.environ[MIXER]


class TestMixer(MixerContract):
    """The promises of the whole mixer, put to the test in each of its shells."""

    cases = tuple(Case(_NAME, shell) for shell in shells(_NAME))


class TestCard(CardContract):
    """The properties on the card, which are those of the core in the bare shell."""

    cases = (Case(_NAME, operators.BARE),)
