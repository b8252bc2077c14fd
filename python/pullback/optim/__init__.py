"""Optimizers: update rules run by one fused driver, schedules, averages, clipping."""

from __future__ import annotations

from . import lr_scheduler, sde
from .adaptive import Adadelta, Adagrad, NAdam, RAdam, RMSprop
from .averages import EMA, Lookahead, PolynomialAverage
from .batch import NormTest, clip_per_sample
from .clip import clip_grad_norm_, clip_grad_value_
from .closures import ASAM, DNSAM, GAM, SAM, USAM, GradientRegularization, XGrad
from .groups import groups
from .kinetic import SGLD, ExpScaled, ExpScaledSGD, Gravity
from .muon import Muon
from .oasis import OASIS
from .optimistic import OptAMSGrad, extrapolate
from .optimizer import Optimizer
from .parameter_free import LAMB, AdagradNorm, ADoG, DoG, LDoG, NormalizedGD, Prodigy, ScheduleFreeAdamW, TDoG, UDoG
from .rule import rule
from .rules import SGD, Adam, AdamW
from .spider import SPIDER
from .variants import AdEMAMix, CautiousAdamW, DiffGrad, Grams, Lion

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
    "SPIDER",
    "USAM",
    "ADoG",
    "AdEMAMix",
    "Adadelta",
    "Adagrad",
    "AdagradNorm",
    "Adam",
    "AdamW",
    "CautiousAdamW",
    "DiffGrad",
    "DoG",
    "ExpScaled",
    "ExpScaledSGD",
    "GradientRegularization",
    "Grams",
    "Gravity",
    "LDoG",
    "Lion",
    "Lookahead",
    "Muon",
    "NAdam",
    "NormTest",
    "NormalizedGD",
    "OptAMSGrad",
    "Optimizer",
    "PolynomialAverage",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "ScheduleFreeAdamW",
    "TDoG",
    "UDoG",
    "XGrad",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_per_sample",
    "extrapolate",
    "groups",
    "lr_scheduler",
    "rule",
    "sde",
]
