"""Measures pullback beside PyTorch: `python -m pullback bench`. README.md here tells how it works."""
