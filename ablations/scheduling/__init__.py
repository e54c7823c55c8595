"""Who runs which trial, and what is known of it."""
