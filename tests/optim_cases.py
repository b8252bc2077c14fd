"""References and data that the optimizers' tests share."""

import numpy as np

import pullback as pb
from pullback import optim

SHAPES = [(), (0,), (1,), (7,), (33, 5), (1025,), (40000,)]


# ---- references in float64, written from the formulas


def ref_sgd(p, grads, lr, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0, decoupled=False):
    m = None
    for g in grads:
        if weight_decay and decoupled:
            p = p - lr * weight_decay * p
        elif weight_decay:
            g = g + weight_decay * p
        if momentum:
            m = g if m is None else momentum * m + (1 - dampening) * g
            g = g + momentum * m if nesterov else m
        p = p - lr * g
    return p


def ref_adam(p, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, decoupled=False):
    b1, b2 = betas
    m = v = top = np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        if weight_decay and decoupled:
            p = p - lr * weight_decay * p
        elif weight_decay:
            g = g + weight_decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        top = np.maximum(top, v)
        second = top if amsgrad else v
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
    return p


CASES = [
    (optim.SGD, ref_sgd, {"lr": 0.1}),
    (optim.SGD, ref_sgd, {"lr": 0.1, "weight_decay": 0.3}),
    (optim.SGD, ref_sgd, {"lr": 0.1, "weight_decay": 0.3, "decoupled": True}),
    (optim.SGD, ref_sgd, {"lr": 0.05, "momentum": 0.9}),
    (optim.SGD, ref_sgd, {"lr": 0.05, "momentum": 0.8, "dampening": 0.4, "weight_decay": 0.1}),
    (optim.SGD, ref_sgd, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decoupled": True}),
    (optim.Adam, ref_adam, {"lr": 0.01}),
    (optim.Adam, ref_adam, {"lr": 0.01, "betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.2}),
    (optim.Adam, ref_adam, {"lr": 0.01, "amsgrad": True}),
    (optim.Adam, ref_adam, {"lr": 0.01, "betas": (0.0, 0.0), "eps": 1e-2}),
    (optim.AdamW, ref_adam, {"lr": 0.01, "weight_decay": 0.5, "decoupled": True}),
    (optim.AdamW, ref_adam, {"lr": 0.01, "weight_decay": 0.5, "decoupled": True, "amsgrad": True}),
    (optim.AdamW, ref_adam, {"lr": 0.01, "weight_decay": 0.5, "decoupled": False}),
]
IDS = [f"{c[0].__name__}-" + "-".join(f"{k}={v}" for k, v in c[2].items()) for c in CASES]


def data(shape, steps, dtype, seed=0):
    rng = np.random.default_rng([seed, *shape])
    p = rng.normal(size=shape).astype(dtype)
    return p, [(rng.normal(size=shape) + 0.3).astype(dtype) for _ in range(steps)]


def error(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm((a - b).ravel()) / (np.linalg.norm(b.ravel()) + 1e-300)


def tensor(x):
    return pb.tensor(np.asarray(x))


def array(x):
    return np.array(x.numpy())  # a copy: .numpy() shares memory


def run(cls, hyper, starts, grads, **step):
    """All tensors in one optimizer; grads[i] are those of tensor i."""
    params = [tensor(p) for p in starts]
    opt = cls(params, **hyper)
    for k in range(len(grads[0])):
        for p, gs in zip(params, grads, strict=True):
            p.grad = tensor(gs[k])
        opt.step(**step)
    return [array(p) for p in params], opt


def one():
    return tensor(np.ones(2, np.float32))
