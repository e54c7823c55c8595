"""Mixers whose state is a matrix that every token corrects: delta rules and fast weights."""
