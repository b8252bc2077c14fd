"""Float64 references of the update rules, written from the formulas. A rule takes lists: start values, then for each
step the gradients of all tensors; it returns the parameters after the last step."""

import numpy as np


def decay(p, g, lr, wd, decoupled):
    """(p, g) after weight decay."""
    if wd and decoupled:
        return p - lr * wd * p, g
    return p, g + wd * p


def elementwise(f):
    """f(p, grads, **hyper) of one tensor as a rule over lists."""

    def rule(ps, steps, **hyper):
        return [f(p, [s[i] for s in steps], **hyper) for i, p in enumerate(ps)]

    rule.__name__ = f.__name__
    return rule


@elementwise
def rmsprop(p, grads, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, weight_decay=0.0, decoupled=False):
    v = a = b = np.zeros_like(p)
    for g in grads:
        p, g = decay(p, g, lr, weight_decay, decoupled)
        v = alpha * v + (1 - alpha) * g * g
        a = alpha * a + (1 - alpha) * g
        u = g / (np.sqrt(np.maximum(v - a * a, 0) if centered else v) + eps)
        b = momentum * b + u
        p = p - lr * b
    return p


@elementwise
def adagrad(p, grads, lr=1e-2, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-10, weight_decay=0.0,
            decoupled=False):  # fmt: skip
    v = np.full_like(p, initial_accumulator_value)
    for t, g in enumerate(grads):
        p, g = decay(p, g, lr, weight_decay, decoupled)
        v = v + g * g
        p = p - lr / (1 + t * lr_decay) * g / (np.sqrt(v) + eps)
    return p


@elementwise
def adadelta(p, grads, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, decoupled=False):
    v = d = np.zeros_like(p)
    for g in grads:
        p, g = decay(p, g, lr, weight_decay, decoupled)
        v = rho * v + (1 - rho) * g * g
        u = g * np.sqrt(d + eps) / np.sqrt(v + eps)
        d = rho * d + (1 - rho) * u * u
        p = p - lr * u
    return p


def moments(p, grads, betas, lr, weight_decay, decoupled, move):
    """Calls move(p, g, m, v, t) after the averages of step t."""
    m = v = np.zeros_like(p)
    b1, b2 = betas
    for t, g in enumerate(grads, 1):
        p, g = decay(p, g, lr, weight_decay, decoupled)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        p = move(p, g, m, v, t)
    return p


def adam_direction(m, v, t, betas, eps, eps_mode="after"):
    c1, c2 = 1 - betas[0] ** t, 1 - betas[1] ** t
    if eps_mode == "before":
        return m / c1 / ((np.sqrt(v) + eps) / np.sqrt(c2))
    return m / c1 / (np.sqrt(v / c2) + eps)


@elementwise
def adam(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False, amsgrad=False,
         adamnc=False, eps_mode="after"):  # fmt: skip
    b1, b2 = betas
    m = v = top = np.zeros_like(p)
    if amsgrad == "paper":
        top = top + eps
    for t, g in enumerate(grads, 1):
        p, g = decay(p, g, lr, weight_decay, decoupled)
        w = 1 / t if adamnc else 1 - b2
        m = b1 * m + (1 - b1) * g
        v = (1 - w) * v + w * g * g
        top = np.maximum(top, v)
        if amsgrad == "paper":
            p = p - lr / np.sqrt(t) * m / np.sqrt(top)
        else:
            second = (0.0 if adamnc else b2) if adamnc else b2
            p = p - lr * adam_direction(m, top if amsgrad else v, t, (b1, second), eps, eps_mode)
    return p


@elementwise
def nadam(p, grads, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, momentum_decay=4e-3, weight_decay=0.0, decoupled=False):
    product = 1.0

    def mu(t):
        return betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def move(p, g, m, v, t):
        nonlocal product
        product *= mu(t)
        d = np.sqrt(v / (1 - betas[1] ** t)) + eps
        return p - lr * (1 - mu(t)) / (1 - product) * g / d - lr * mu(t + 1) / (1 - product * mu(t + 1)) * m / d

    return moments(p, grads, betas, lr, weight_decay, decoupled, move)


@elementwise
def radam(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False, eps_mode="after"):
    def move(p, g, m, v, t):
        b2t = betas[1] ** t
        full = 2 / (1 - betas[1]) - 1
        rho = full - 2 * t * b2t / (1 - b2t)
        if rho <= 5:
            return p - lr * m / (1 - betas[0] ** t)
        rect = np.sqrt((rho - 4) * (rho - 2) * full / ((full - 4) * (full - 2) * rho))
        return p - lr * rect * adam_direction(m, v, t, betas, eps, eps_mode)

    return moments(p, grads, betas, lr, weight_decay, decoupled, move)


@elementwise
def lion(p, grads, lr=1e-4, betas=(0.9, 0.99), kappa="l1", kappa_param=None, weight_decay=0.0, decoupled=True):
    m, e = np.zeros_like(p), kappa_param
    for g in grads:
        p, g = decay(p, g, lr, weight_decay, decoupled)
        c = betas[0] * m + (1 - betas[0]) * g
        m = betas[1] * m + (1 - betas[1]) * g
        if kappa == "huber":
            c = np.clip(c / e, -1, 1)
        elif kappa == "hinge":
            c = np.sign(c) * (np.abs(c) > e)
        elif kappa == "l2":
            c = c / np.linalg.norm(c.ravel()) if c.any() else c
        elif kappa == "lp":
            norm = (np.abs(c) ** e).sum() ** (1 / e)
            c = np.sign(c) * np.abs(c) ** (e - 1) / norm ** (e - 1) if c.any() else c
        elif kappa == "l1":
            c = np.sign(c)
        p = p - lr * c
    return p


@elementwise
def grams(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, decoupled=True, eps_mode="after"):
    def move(p, g, m, v, t):
        return p - lr * np.sign(g) * np.abs(adam_direction(m, v, t, betas, eps, eps_mode))

    return moments(p, grads, betas, lr, weight_decay, decoupled, move)


@elementwise
def cautious(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=True, eps_mode="after"):
    def move(p, g, m, v, t):
        mask = (m * g > 0).astype(float)
        share = max(mask.mean(), 1e-3) if mask.size else 1.0
        return p - lr * mask / share * adam_direction(m, v, t, betas, eps, eps_mode)

    return moments(p, grads, betas, lr, weight_decay, decoupled, move)


@elementwise
def diffgrad(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False, eps_mode="after"):
    before = np.zeros_like(p)

    def move(p, g, m, v, t):
        nonlocal before
        friction = 1 / (1 + np.exp(-np.abs(before - g)))
        before = g
        return p - lr * friction * adam_direction(m, v, t, betas, eps, eps_mode)

    return moments(p, grads, betas, lr, weight_decay, decoupled, move)


@elementwise
def ademamix(p, grads, lr=1e-3, betas=(0.9, 0.999, 0.9999), alpha=5.0, alpha_steps=None, beta3_steps=None, eps=1e-8,
             weight_decay=0.0, decoupled=True):  # fmt: skip
    b1, b2, b3 = betas
    slow = np.zeros_like(p)

    def half_life(b):
        return np.log(0.5) / np.log(b) if b else 0.0

    def move(p, g, m, v, t):
        nonlocal slow
        a, b = alpha, b3
        if alpha_steps:
            a = alpha * min(t / alpha_steps, 1)
        if beta3_steps and t < beta3_steps:
            part = t / beta3_steps
            b = 0.5 ** (1 / ((1 - part) * half_life(b1) + part * half_life(b3)))
        slow = b * slow + (1 - b) * g
        return p - lr * (m / (1 - b1**t) + a * slow) / (np.sqrt(v / (1 - b2**t)) + eps)

    return moments(p, grads, (b1, b2), lr, weight_decay, decoupled, move)


@elementwise
def exp_scaled(p, grads, lr=1e-3, momentum=0.9, scales=(1.0,), weight_decay=0.0, decoupled=False):
    m = np.zeros_like(p)
    for t, g in enumerate(grads):
        p, g = decay(p, g, lr, weight_decay, decoupled)
        m = momentum * m + g
        p = p - scales[t % len(scales)] * lr * m
    return p


@elementwise
def gravity(p, grads, lr=0.1, alpha=0.0, beta=0.9, t0=0, weight_decay=0.0, decoupled=False):
    v = np.zeros_like(p)
    for k, g in enumerate(grads, t0):
        p, g = decay(p, g, lr, weight_decay, decoupled)
        b = (beta * k + 1) / (k + 2)
        top = np.abs(g).max() if g.size else 0.0
        v = b * v + (1 - b) * g / (1 + (g * top) ** 2)
        p = p - lr * v
    return p


@elementwise
def opt_amsgrad(p, grads, lr=1e-3, betas=(0.9, 0.999), v0=1e-8, weight_decay=0.0, decoupled=False):
    w, m, v, top, guess = p, np.zeros_like(p), np.zeros_like(p), np.full_like(p, v0), np.zeros_like(p)
    for g in grads:
        if weight_decay and decoupled:
            w = w - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        old = m
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * (g - guess) ** 2
        top = np.maximum(top, v)
        w = w - lr * m / np.sqrt(top)
        guess = g
        p = w - lr * (betas[0] * old + (1 - betas[0]) * g) / np.sqrt(top)
    return p


@elementwise
def lamb(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, decoupled=True):
    inside, coupled = (weight_decay, 0.0) if decoupled else (0.0, weight_decay)

    def move(p, g, m, v, t):
        u = adam_direction(m, v, t, betas, eps) + inside * p
        a, b = np.linalg.norm(p.ravel()), np.linalg.norm(u.ravel())
        return p - lr * (a / b if a > 0 and b > 0 else 1.0) * u

    return moments(p, grads, betas, lr, coupled, False, move)


@elementwise
def schedule_free(p, grads, lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, warmup_steps=0, r=0.0,
                  weight_lr_power=2.0, decoupled=True):  # fmt: skip
    inside, coupled = (weight_decay, 0.0) if decoupled else (0.0, weight_decay)
    y, z, v, top, total = p, p, np.zeros_like(p), 0.0, 0.0
    x = p
    for t, g in enumerate(grads, 1):
        g = g + coupled * y
        rate = lr * (min(t / warmup_steps, 1) if warmup_steps else 1)
        top = max(top, rate)
        weight = t**r * top**weight_lr_power
        total += weight
        v = betas[1] * v + (1 - betas[1]) * g * g
        u = g / (np.sqrt(v / (1 - betas[1] ** t)) + eps) + inside * y
        z = z - rate * u
        x = (1 - weight / total) * x + weight / total * z
        y = (1 - betas[0]) * z + betas[0] * x
    return y


# ---- norms over the whole model


def total(arrays):
    return sum(float((np.asarray(a) ** 2).sum()) for a in arrays)


def adagrad_norm(ps, steps, lr=1e-2, b0=1e-2, weight_decay=0.0, decoupled=False):
    square = b0**2
    for gs in steps:
        ps, gs = zip(*[decay(p, g, lr, weight_decay, decoupled) for p, g in zip(ps, gs, strict=True)], strict=True)
        square += total(gs)
        ps = [p - lr / np.sqrt(square) * g for p, g in zip(ps, gs, strict=True)]
    return ps


def normalized_gd(ps, steps, lr=1e-3, beta=1.0, weight_decay=0.0, decoupled=False):
    for gs in steps:
        ps, gs = zip(*[decay(p, g, lr, weight_decay, decoupled) for p, g in zip(ps, gs, strict=True)], strict=True)
        norm = np.sqrt(total(gs))
        ps = [p - lr * g / norm**beta for p, g in zip(ps, gs, strict=True)]
    return ps


def dog(ps, steps, lr=1.0, reps_rel=1e-6, eps=1e-8, average=True, weight_decay=0.0, decoupled=False, tame=None):
    """Returns (parameters, averages)."""
    start, av = list(ps), list(ps)
    r, square = reps_rel * (1 + np.sqrt(total(ps))), eps
    top = first = 0.0
    for t, gs in enumerate(steps, 1):
        r = max(r, np.sqrt(total([p - s for p, s in zip(ps, start, strict=True)])))
        if not decoupled:
            gs = [g + weight_decay * p for p, g in zip(ps, gs, strict=True)]
        before, square = square, square + total(gs)
        divisor = square
        if tame is not None:
            top = max(top, total(gs))
            first = first or total(gs)
            divisor = (64 * np.log(60 * np.log(6 * t) / tame)) ** 2 * (1 + np.log(1 + t * top / first)) ** 2
            divisor *= before + 16 * top
        keep = 1 - lr * weight_decay if decoupled else 1.0
        ps = [keep * p - lr * r / np.sqrt(divisor) * g for p, g in zip(ps, gs, strict=True)]
        k = 9 / (8 + t)
        av = [(1 - k) * a + k * p for a, p in zip(av, ps, strict=True)]
    return ps, av


def prodigy(ps, steps, lr=1.0, betas=(0.9, 0.999), beta3=None, eps=1e-8, weight_decay=0.0, decoupled=True,
            use_bias_correction=False, safeguard_warmup=False, d0=1e-6, d_coef=1.0, growth_rate=np.inf):  # fmt: skip
    b1, b2 = betas
    b3 = np.sqrt(b2) if beta3 is None else beta3
    start, m = list(ps), [np.zeros_like(p) for p in ps]
    v, s = list(m), list(m)
    d = d_max = d0
    top = 0.0
    for t, gs in enumerate(steps, 1):
        if not decoupled:
            gs = [g + weight_decay * p for p, g in zip(ps, gs, strict=True)]
        dlr = d * lr * (np.sqrt(1 - b2**t) / (1 - b1**t) if use_bias_correction else 1.0)
        dot = sum(float((g * (x - p)).sum()) for g, x, p in zip(gs, start, ps, strict=True))
        top = b3 * top + d / d0 * dlr * dot
        m = [b1 * a + d * (1 - b1) * g for a, g in zip(m, gs, strict=True)]
        v = [b2 * a + d * d * (1 - b2) * g * g for a, g in zip(v, gs, strict=True)]
        s = [b3 * a + d / d0 * (d if safeguard_warmup else dlr) * g for a, g in zip(s, gs, strict=True)]
        guess = d_coef * top / sum(np.abs(a).sum() for a in s)
        if d == d0:
            d = max(d, guess)
        d_max = max(d_max, guess)
        d = min(d_max, d * growth_rate)
        if decoupled:
            ps = [p - weight_decay * dlr * p for p in ps]
        ps = [p - dlr * a / (np.sqrt(b) + d * eps) for p, a, b in zip(ps, m, v, strict=True)]
    return ps
