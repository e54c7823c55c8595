"""Hostile input to every command of the project, each in a process of its own, and a judge of how it is answered.

`python -m tests.hostile` drives all cases and writes a table of those that fail; the slow suite does the same.
"""
