"""Rules as a user writes them, for the tests of pb.optim.rule."""

import pullback as pb


def adam(p, g, states, hyper):
    """Adam."""
    b1, b2 = hyper.betas
    m = states.exp_avg + (1 - b1) * (g - states.exp_avg)
    v = states.exp_avg_sq + (1 - b2) * (g * g - states.exp_avg_sq)
    rate = hyper.lr / (1 - b1**hyper.t)
    correct = 1 / pb.sqrt(1 - b2**hyper.t)
    return p - rate * (m / (pb.sqrt(v) * correct + hyper.eps)), m, v


Adam = pb.optim.rule(
    "Adam",
    states=["exp_avg", "exp_avg_sq"],
    hyper={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    update=adam,
)


def lion(p, g, states, hyper):
    """Lion."""
    m = states["exp_avg"]
    direction = pb.sign(m + (1 - hyper.beta1) * (g - m))
    return p - hyper.lr * direction, {"exp_avg": m + (1 - hyper.beta2) * (g - m)}


Lion = pb.optim.rule("Lion", states=["exp_avg"], hyper={"lr": 1e-4, "beta1": 0.9, "beta2": 0.99}, update=lion)


def _lamb_direction(p, g, states, hyper):
    b1, b2 = hyper.betas
    m = states.exp_avg + (1 - b1) * (g - states.exp_avg)
    v = states.exp_avg_sq + (1 - b2) * (g * g - states.exp_avg_sq)
    first = 1 / (1 - b1**hyper.t)
    second = 1 / pb.sqrt(1 - b2**hyper.t)
    u = first * m / (pb.sqrt(v) * second + hyper.eps) + hyper.weight_decay * p
    return u, m, v


def lamb_measure(p, g, states, hyper):
    u, _, _ = _lamb_direction(p, g, states, hyper)
    return {"p": p * p, "u": u * u}


def lamb(p, g, states, hyper, sums):
    """LAMB."""
    u, m, v = _lamb_direction(p, g, states, hyper)
    some = pb.minimum(sums.p, sums.u) > 0
    ratio = pb.where(some, sums.p, 1.0) / pb.where(some, sums.u, 1.0)
    return p - hyper.lr * pb.sqrt(ratio) * u, m, v


LAMB = pb.optim.rule(
    "LAMB",
    states=["exp_avg", "exp_avg_sq"],
    hyper={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0},
    update=lamb,
    measure=lamb_measure,
)


def dog_measure(p, g, states, hyper):
    d = states.displacement
    return {"g": g * g, "d": d * d, "p": pb.where(hyper.t == 1, p * p, 0.0)}


def dog(p, g, states, hyper, sums):
    """Distance over gradients."""
    first = hyper.t == 1
    start_distance = hyper.reps_rel * (1 + pb.sqrt(sums.p))
    distance = pb.where(first, start_distance, pb.maximum(states.distance, pb.sqrt(sums.d)))
    squares = pb.where(first, hyper.eps, states.grad_squares) + sums.g
    some = squares > 0
    rate = pb.where(some, hyper.lr * distance / pb.sqrt(pb.where(some, squares, 1.0)), 0.0)
    start = pb.where(first, p, states.start)
    d = states.displacement - rate * g
    return start + d, {"start": start, "displacement": d, "distance": distance, "grad_squares": squares}


DOG_STATES = {"start": "exact", "displacement": "exact", "distance": "number", "grad_squares": "number"}
DOG_HYPER = {"lr": 1.0, "reps_rel": 1e-6, "eps": 1e-8}
DoG = pb.optim.rule("DoG", states=DOG_STATES, hyper=DOG_HYPER, update=dog, measure=dog_measure, over="model")
LDoG = pb.optim.rule("LDoG", states=DOG_STATES, hyper=DOG_HYPER, update=dog, measure=dog_measure)
