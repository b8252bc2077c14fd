"""Optimizers: update rules run by one fused driver, schedules, averages, clipping."""

from __future__ import annotations

from . import lr_scheduler
from .adaptive import Adadelta, Adagrad, NAdam, RAdam, RMSprop
from .averages import EMA
from .clip import clip_grad_norm_, clip_grad_value_
from .closures import ASAM, DNSAM, GAM, SAM, USAM, GradientRegularization, XGrad
from .groups import groups
from .kinetic import SGLD, ExpScaledSGD, Gravity
from .muon import Muon
from .oasis import OASIS
from .optimizer import Optimizer
from .parameter_free import LAMB, AdagradNorm, DoG, LDoG, NormalizedGD, Prodigy, ScheduleFreeAdamW, TDoG, UDoG
from .rule import rule
from .rules import SGD, Adam, AdamW
from .variants import AdEMAMix, CautiousAdamW, DiffGrad, Grams, Lion, OptAMSGrad

__all__ = [
    "ASAM",
    "DNSAM",
    "EMA",
    "GAM",
    "LAMB",
    "OASIS",
    "SAM",
    "SGD",
    "SGLD",
    "USAM",
    "AdEMAMix",
    "Adadelta",
    "Adagrad",
    "AdagradNorm",
    "Adam",
    "AdamW",
    "CautiousAdamW",
    "DiffGrad",
    "DoG",
    "ExpScaledSGD",
    "GradientRegularization",
    "Grams",
    "Gravity",
    "LDoG",
    "Lion",
    "Muon",
    "NAdam",
    "NormalizedGD",
    "OptAMSGrad",
    "Optimizer",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "ScheduleFreeAdamW",
    "TDoG",
    "UDoG",
    "XGrad",
    "clip_grad_norm_",
    "clip_grad_value_",
    "groups",
    "lr_scheduler",
    "rule",
]
