"""Optimisers by name, over groups of parameters, and their learning rate step by step."""

from tasks.optim.factory import create, state_like
from tasks.optim.groups import parameter_groups, rates
from tasks.optim.schedules import rate, span

__all__ = ["create", "parameter_groups", "rate", "rates", "span", "state_like"]
