"""The contract that every mixer keeps, as tests that run on anyone's: `python -m operators test NAME`."""
