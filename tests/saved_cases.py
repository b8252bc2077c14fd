"""Inputs of the tests of saved slots."""

import numpy as np

import pullback as pb


def normal(n=2000, seed=0, dtype=pb.float64):
    return pb.asarray(np.random.default_rng(seed).standard_normal(n)).astype(dtype)


def leaf(n=2000, seed=0, dtype=pb.float64):
    x = normal(n, seed, dtype)
    x.requires_grad = True
    return x
