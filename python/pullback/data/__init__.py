"""Datasets and the loader that makes batches of them."""

from .datasets import RandomWindows, Text, Windows, digits, mnist, text
from .loader import DataLoader, TensorDataset, batch_rng, collate

__all__ = [
    "DataLoader",
    "RandomWindows",
    "TensorDataset",
    "Text",
    "Windows",
    "batch_rng",
    "collate",
    "digits",
    "mnist",
    "text",
]
