"""Pictures of operators on one page: `python -m operators.show NAME` draws a mixer, with CKPT those of a checkpoint."""
