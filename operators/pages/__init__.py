"""The page of a mixer from its card: text, pictures and times; `python -m operators.pages NAME` writes it."""
