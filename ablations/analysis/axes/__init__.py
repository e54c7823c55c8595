"""Blocks with an axis: budgets, along which arms have curves, or data sets, over which arms are put together."""
