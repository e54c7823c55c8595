"""Sections and figures of blocks with an axis of budgets or data sets."""
