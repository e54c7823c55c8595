"""Mixers whose recurrence runs along rows and columns of the grid at once."""
