"""What `python -m pullback` does."""
