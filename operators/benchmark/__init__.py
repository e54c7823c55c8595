"""The benchmark, `python -m operators.benchmark`: time and memory of every mixer, checked before it is timed."""
