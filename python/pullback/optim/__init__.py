"""Optimizers: update rules run by one fused driver, schedules, averages, clipping."""

from __future__ import annotations

from . import lr_scheduler
from .averages import EMA
from .clip import clip_grad_norm_, clip_grad_value_
from .groups import groups
from .optimizer import Optimizer
from .rules import SGD, Adam, AdamW

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "clip_grad_norm_",
    "clip_grad_value_",
    "groups",
    "lr_scheduler",
]
