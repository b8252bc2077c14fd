"""Every update rule beyond SGD and Adam against float64 references, and what all of them share."""

import numpy as np
import optim_refs as ref
import pytest

import pullback as pb
from pullback import _core as C
from pullback import optim

SHAPES = [(), (0,), (1,), (33, 5), (1025,), (17001,)]


def dog(ps, steps, **hyper):
    return ref.dog(ps, steps, **hyper)[0]


def ldog(ps, steps, **hyper):
    return [ref.dog([p], [[s[i]] for s in steps], **hyper)[0][0] for i, p in enumerate(ps)]


def tdog(ps, steps, delta=0.01, **hyper):
    return ref.dog(ps, steps, tame=delta, **hyper)[0]


CASES = [
    (optim.Adam, ref.adam, {"lr": 0.01, "amsgrad": "paper"}),
    (optim.Adam, ref.adam, {"lr": 0.01, "amsgrad": "paper", "adamnc": True, "eps": 1e-3, "weight_decay": 0.1}),
    (optim.Adam, ref.adam, {"lr": 0.01, "adamnc": True}),
    (optim.Adam, ref.adam, {"lr": 0.01, "eps": 1e-2, "eps_mode": "before"}),
    (optim.RMSprop, ref.rmsprop, {"lr": 0.01}),
    (optim.RMSprop, ref.rmsprop, {"lr": 0.01, "centered": True, "alpha": 0.9, "weight_decay": 0.1, "eps": 1e-3}),
    (optim.RMSprop, ref.rmsprop, {"lr": 0.01, "momentum": 0.9}),
    (optim.RMSprop, ref.rmsprop, {"lr": 0.01, "momentum": 0.5, "centered": True, "alpha": 0.8, "eps": 1e-2}),
    (optim.Adagrad, ref.adagrad, {"lr": 0.1}),
    (optim.Adagrad, ref.adagrad, {"lr": 0.1, "lr_decay": 0.2, "initial_accumulator_value": 0.3, "weight_decay": 0.1}),
    (optim.Adadelta, ref.adadelta, {}),
    (optim.Adadelta, ref.adadelta, {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.1}),
    (optim.NAdam, ref.nadam, {"lr": 0.01}),
    (optim.NAdam, ref.nadam, {"lr": 0.01, "momentum_decay": 0.1, "weight_decay": 0.2, "decoupled": True}),
    (optim.RAdam, ref.radam, {"lr": 0.01}),
    (optim.RAdam, ref.radam, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-2, "eps_mode": "before"}),
    (optim.Lion, ref.lion, {"lr": 0.01, "weight_decay": 0.3}),
    (optim.Lion, ref.lion, {"lr": 0.01, "kappa": "huber", "kappa_param": 0.3}),
    (optim.Lion, ref.lion, {"lr": 0.01, "kappa": "hinge", "kappa_param": 0.1}),
    (optim.Lion, ref.lion, {"lr": 0.01, "kappa": "l2", "weight_decay": 0.2}),
    (optim.Lion, ref.lion, {"lr": 0.01, "kappa": "lp", "kappa_param": 3.0}),
    (optim.Lion, ref.lion, {"lr": 0.01, "kappa": "quad", "weight_decay": 0.3, "decoupled": False}),
    (optim.Grams, ref.grams, {"lr": 0.01, "weight_decay": 0.3}),
    (optim.Grams, ref.grams, {"lr": 0.01, "eps": 1e-2, "eps_mode": "before"}),
    (optim.CautiousAdamW, ref.cautious, {"lr": 0.01, "weight_decay": 0.3}),
    (optim.DiffGrad, ref.diffgrad, {"lr": 0.01}),
    (optim.DiffGrad, ref.diffgrad, {"lr": 0.01, "weight_decay": 0.2, "eps": 1e-3, "decoupled": True}),
    (optim.AdEMAMix, ref.ademamix, {"lr": 0.01, "weight_decay": 0.1}),
    (optim.AdEMAMix, ref.ademamix, {"lr": 0.01, "alpha": 8.0, "alpha_steps": 16, "beta3_steps": 12}),
    (optim.AdEMAMix, ref.ademamix, {"lr": 0.01, "betas": (0.0, 0.99, 0.999), "beta3_steps": 30}),
    (optim.ExpScaledSGD, ref.exp_scaled, {"lr": 0.01, "scales": (0.5, 2.0, 0.1), "weight_decay": 0.1}),
    (optim.Gravity, ref.gravity, {"alpha": 0.0}),
    (optim.Gravity, ref.gravity, {"lr": 0.3, "alpha": 0.0, "beta": 0.5, "t0": 1, "weight_decay": 0.1}),
    (optim.OptAMSGrad, ref.opt_amsgrad, {"lr": 0.01}),
    (optim.OptAMSGrad, ref.opt_amsgrad, {"lr": 0.01, "v0": 0.5, "weight_decay": 0.2, "decoupled": True}),
    (optim.AdagradNorm, ref.adagrad_norm, {"lr": 1.0}),
    (optim.AdagradNorm, ref.adagrad_norm, {"lr": 1.0, "b0": 3.0, "weight_decay": 0.1}),
    (optim.NormalizedGD, ref.normalized_gd, {"lr": 0.5}),
    (optim.NormalizedGD, ref.normalized_gd, {"lr": 0.05, "beta": 0.4, "weight_decay": 0.1, "decoupled": True}),
    (optim.DoG, dog, {}),
    (optim.DoG, dog, {"lr": 0.5, "reps_rel": 1e-3, "eps": 1.0, "average": False, "weight_decay": 0.1}),
    (optim.DoG, dog, {"lr": 0.5, "reps_rel": 1e-3, "weight_decay": 0.1, "decoupled": True}),
    (optim.LDoG, ldog, {}),
    (optim.LDoG, ldog, {"lr": 0.5, "reps_rel": 1e-3, "weight_decay": 0.1}),
    (optim.TDoG, tdog, {"reps_rel": 1e-2}),
    (optim.TDoG, tdog, {"reps_rel": 1.0, "delta": 0.5, "average": False}),
    (optim.LAMB, ref.lamb, {"lr": 0.01, "weight_decay": 0.1}),
    (optim.LAMB, ref.lamb, {"lr": 0.01, "eps": 1e-2, "weight_decay": 0.1, "decoupled": False}),
    (optim.Prodigy, ref.prodigy, {}),
    (optim.Prodigy, ref.prodigy, {"d0": 1e-3, "weight_decay": 0.1, "use_bias_correction": True, "growth_rate": 1.5}),
    (
        optim.Prodigy,
        ref.prodigy,
        {"beta3": 0.8, "safeguard_warmup": True, "d_coef": 2.0, "weight_decay": 0.1, "decoupled": False},
    ),
    (optim.ScheduleFreeAdamW, ref.schedule_free, {}),
    (optim.ScheduleFreeAdamW, ref.schedule_free, {"lr": 0.1, "weight_decay": 0.1, "warmup_steps": 9, "r": 1.0}),
]
IDS = [f"{c[0].__name__}-" + "-".join(f"{k}={v}" for k, v in c[2].items()) for c in CASES]


def data(steps, dtype, shapes=SHAPES):
    rng = np.random.default_rng(7)
    ps = [(rng.normal(size=s) + (3 if np.prod(s) == 1 else 0)).astype(dtype) for s in shapes]  # alone: far from 0
    return ps, [[(rng.normal(size=s) + 0.2).astype(dtype) for s in shapes] for _ in range(steps)]


def tensor(x):
    return pb.tensor(np.asarray(x))


def array(x):
    return np.array(x.numpy())


def error(a, b):
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-300)


def run(cls, hyper, ps, steps):
    params = [tensor(p) for p in ps]
    opt = cls(params, **hyper)
    for gs in steps:
        opt.step(grads=[tensor(g) for g in gs])
    return params, opt


def wide(ps, steps):
    return [p.astype(np.float64) for p in ps], [[g.astype(np.float64) for g in gs] for gs in steps]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cls", "rule", "hyper"), CASES, ids=IDS)
def test_rule(cls, rule, hyper, dtype):
    ps, steps = data(24, dtype)
    params, _ = run(cls, hyper, ps, steps)
    for got, start, want in zip(params, ps, rule(*wide(ps, steps), **hyper), strict=True):
        assert got.shape == start.shape
        assert str(got.dtype).endswith(dtype)
        if start.size:
            assert error(array(got), want) <= (2e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(("cls", "rule", "hyper"), CASES, ids=IDS)
def test_pure_form_equals_the_step(cls, rule, hyper):
    ps, steps = data(20, "float64", [(9, 3), (), (0,)])
    params, _ = run(cls, hyper, ps, steps)
    opt = cls(**hyper)
    tree = {"a": tensor(ps[0]), "rest": [tensor(ps[1]), tensor(ps[2])]}
    state = opt.init(tree)
    for a, b, c in steps:
        tree, state = opt.update(tree, {"a": tensor(a), "rest": [tensor(b), tensor(c)]}, state)
    assert error(array(tree["a"]), array(params[0])) <= 1e-12
    assert error(array(tree["rest"][0]), array(params[1])) <= 1e-12
    assert tree["rest"][1].shape == (0,)


RANDOM = [(optim.SGLD, None, {"lr": 0.1, "temperature": 0.5}), (optim.Gravity, None, {"lr": 0.3})]
ALL = CASES + RANDOM
ALL_IDS = [*IDS, "SGLD", "Gravity-drawn"]


@pytest.mark.parametrize(("cls", "rule", "hyper"), ALL, ids=ALL_IDS)
def test_save_load_continue_is_bit_exact(cls, rule, hyper):
    ps, steps = data(8, "float32", [(50,), ()])
    params, opt = run(cls, hyper, ps, steps[:4])
    copies = [p.detach().clone() for p in params]
    other = cls(copies, **hyper)
    other.load_state_dict(opt.state_dict())
    for gs in steps[4:]:
        opt.step(grads=[tensor(g) for g in gs])
        other.step(grads=[tensor(g) for g in gs])
    assert [p.tobytes() for p in params] == [p.tobytes() for p in copies]


@pytest.mark.parametrize(("cls", "rule", "hyper"), ALL, ids=ALL_IDS)
def test_bits_do_not_depend_on_threads_order_or_grouping(cls, rule, hyper):
    shapes = [(60003,), (3, 7), (0,), (17000,), ()]
    ps, steps = data(3, "float32", shapes)

    def result(threads, cut):
        before = C.get_num_threads()
        C.set_num_threads(threads)
        pb.manual_seed(3)
        try:
            params = [tensor(p) for p in ps]
            opt = cls([{"params": params[:cut]}, {"params": params[cut:]}] if cut else params, **hyper)
            for gs in steps:
                opt.step(grads=[tensor(g) for g in gs], clip_norm=100.0)
            return [p.tobytes() for p in params]
        finally:
            C.set_num_threads(before)

    first = result(1, 0)
    assert first == result(3, 0)
    assert first == result(2, 2)


@pytest.mark.parametrize(("cls", "rule", "hyper"), ALL, ids=ALL_IDS)
def test_a_gradient_that_is_not_finite_changes_nothing(cls, rule, hyper):
    ps, steps = data(3, "float32", [(40,), (3,)])
    params, opt = run(cls, hyper, ps, steps[:2])
    before, state = [p.tobytes() for p in params], opt.state_dict()
    bad = steps[2][0].copy()
    bad[7] = np.nan
    opt.step(grads=[tensor(bad), tensor(steps[2][1])], clip_norm=1.0)
    assert opt.last_skipped
    assert before == [p.tobytes() for p in params]
    after = opt.state_dict()
    for key, value in state.items():
        same = value.tobytes() == after[key].tobytes() if isinstance(value, pb.Tensor) else value == after[key]
        assert same, key


@pytest.mark.parametrize(("cls", "rule", "hyper"), ALL, ids=ALL_IDS)
def test_zero_gradients_give_no_nan(cls, rule, hyper):
    p = tensor(np.ones(5, np.float32))
    opt = cls([p], **hyper)
    for _ in range(3):
        opt.step(grads=[tensor(np.zeros(5, np.float32))])
    assert np.isfinite(array(p)).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("cls", [optim.DoG, optim.LAMB, optim.SGLD, optim.Lion])
def test_sixteen_bit_strided_parameters(cls, name):
    """Staged tiles give what the contiguous float32 tensor gives, rounded at each store."""
    dtype = getattr(pb, name)
    ps, steps = data(1, "float32", [(3000, 2)])
    pb.manual_seed(1)
    p = tensor(ps[0]).astype(dtype)
    whole = p.astype(pb.float32)
    cls([whole], lr=0.5).step(grads=[tensor(steps[0][0])])
    pb.manual_seed(1)
    cls([p], lr=0.5).step(grads=[tensor(steps[0][0])])
    assert p.tobytes() == whole.astype(dtype).tobytes()


# ---- properties of single rules


def test_dog_in_float32_stays_with_float64():
    rng = np.random.default_rng(0)
    h = np.logspace(-3, 0, 100)
    x0 = rng.normal(size=100)
    runs = {}
    for dtype in (np.float32, np.float64):
        x = tensor(x0.astype(dtype))
        opt = optim.DoG([x])
        for _ in range(100):
            opt.step(grads=[tensor(h.astype(dtype)) * x])
        runs[dtype] = array(x)
    assert error(runs[np.float32], runs[np.float64]) <= 1e-6


def test_dog_average_and_scale_invariance():
    ps, steps = data(10, "float64", [(30,), (4,)])
    params, opt = run(optim.DoG, {"reps_rel": 1e-2}, ps, steps)
    want = ref.dog(ps, steps, reps_rel=1e-2)[1]
    for got, av in zip(opt.averaged_parameters(), want, strict=True):
        assert error(array(got), av) <= 1e-12
    scaled, _ = run(optim.DoG, {"reps_rel": 1e-2, "eps": 0.0}, ps, [[1e6 * g for g in gs] for gs in steps])
    plain, _ = run(optim.DoG, {"reps_rel": 1e-2, "eps": 0.0}, ps, steps)
    assert error(array(scaled[0]), array(plain[0])) <= 1e-12
    assert error(array(params[0]), array(plain[0])) <= 1e-8
    with pytest.raises(ValueError, match="no average is kept"):
        optim.DoG([tensor(ps[0])], average=False).averaged_parameters()
    with pytest.raises(TypeError, match="no keyword 'delta'"):
        optim.DoG([tensor(ps[0])], delta=0.1)


def test_schedule_free_average():
    ps, steps = data(12, "float64", [(30,)])
    params, opt = run(optim.ScheduleFreeAdamW, {"lr": 0.1, "betas": (0.8, 0.99)}, ps, steps)
    x = z = ps[0]
    v = np.zeros(30)
    for t, (g,) in enumerate(steps, 1):
        v = 0.99 * v + 0.01 * g * g
        z = z - 0.1 * g / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        x = x + (z - x) / t
    assert error(array(opt.averaged_parameters()[0]), x) <= 1e-12
    before = params[0].tobytes()
    with opt.averaged():
        assert error(array(params[0]), x) <= 1e-12
    assert params[0].tobytes() == before
    with pytest.raises(ValueError, match=r"betas\[0\] must be positive"):
        optim.ScheduleFreeAdamW([tensor(ps[0])], betas=(0.0, 0.9))


def test_sgld_noise_is_normal_and_keyed_by_step():
    pb.manual_seed(0)
    x = tensor(np.zeros(200_000))
    opt = optim.SGLD([x], lr=0.25, temperature=4.0)
    zero = tensor(np.zeros(200_000))
    opt.step(grads=[zero])
    first = array(x)
    opt.step(grads=[zero])
    second = array(x) - first
    n = first.size
    for noise in (first, second):
        assert abs(noise.mean()) <= 4 / np.sqrt(n)
        assert abs(noise.var() - 1) <= 4 * np.sqrt(2 / n)
        assert abs((noise**3).mean()) <= 4 * np.sqrt(15 / n)
        assert abs((noise**4).mean() - 3) <= 4 * np.sqrt(96 / n)
    assert abs((first * second).mean()) <= 4 / np.sqrt(n)
    assert abs((first[1:] * first[:-1]).mean()) <= 4 / np.sqrt(n)
    x = tensor(np.ones(3))
    optim.SGLD([x], lr=0.5, temperature=0.0).step(grads=[tensor(np.array([1.0, 2.0, -4.0]))])
    assert x.tolist() == [0.75, 0.5, 2.0]


def test_sgld_pure_form_draws_the_numbers_of_the_step():
    x = tensor(np.zeros(1000, np.float32))
    opt = optim.SGLD([x], lr=0.5)
    state = opt.init([x])
    state["seed"] = [C.optim_scalar(opt.state_dict()["state.0.seed"])]
    zero = tensor(np.zeros(1000, np.float32))
    new, state = opt.update([x], [zero], state)
    new, state = opt.update(new, [zero], state)
    opt.step(grads=[zero])
    opt.step(grads=[zero])
    assert error(array(new[0]), array(x)) <= 1e-6


def test_exp_scaled_draws_one_factor_per_step():
    pb.manual_seed(5)
    a, b = tensor(np.zeros(3)), tensor(np.zeros(2))
    opt = optim.ExpScaledSGD([a, b], lr=1.0, momentum=0.0)
    moves = []
    for _ in range(400):
        before = array(a)
        opt.step(grads=[tensor(np.ones(3)), tensor(np.ones(2))])
        moves.append(before - array(a))
    moves = np.array(moves)
    assert np.ptp(moves, axis=1).max() <= 1e-12
    assert abs(moves.mean() - 1) <= 4 / np.sqrt(400)
    assert abs(array(a)[0] - array(b)[0]) <= 1e-12
    with pytest.raises(ValueError, match="scales is empty"):
        optim.ExpScaledSGD([a], scales=[])
    with pytest.raises(ValueError, match="scale must be finite and not negative"):
        optim.ExpScaledSGD([a], scales=[1.0, -1.0])


def test_gravity_velocities_start_random_and_forces_are_bounded():
    pb.manual_seed(2)
    x = tensor(np.zeros(50_000))
    opt = optim.Gravity([x], lr=0.1, alpha=0.02)
    v = array(opt.state_dict()["state.0.velocity"])
    assert abs(v.std() - 0.2) <= 4 * 0.2 / np.sqrt(2 * v.size)
    g = np.random.default_rng(0).normal(size=50_000)
    opt.step(grads=[tensor(g)])
    force = 2 * (array(opt.state_dict()["state.0.velocity"]) - 0.5 * v)
    assert np.abs(force).max() <= 1 / (2 * np.abs(g).max()) * (1 + 1e-6)
    with pytest.raises(ValueError, match="alpha must be finite and not negative"):
        optim.Gravity([x], alpha=-1.0)


def test_lion_keeps_weights_in_the_box():
    rng = np.random.default_rng(1)
    p = tensor(rng.uniform(-4, 4, size=1000).astype(np.float32))
    opt = optim.Lion([p], lr=0.25, weight_decay=0.25)
    for _ in range(50):
        opt.step(grads=[tensor(rng.normal(size=1000).astype(np.float32))])
        assert np.abs(array(p)).max() <= 4


def test_ademamix_without_the_slow_mean_is_adamw_to_the_bit():
    ps, steps = data(10, "float32", [(500,)])
    a, _ = run(optim.AdEMAMix, {"lr": 0.01, "alpha": 0.0}, ps, steps)
    b, _ = run(optim.AdamW, {"lr": 0.01, "weight_decay": 0.0}, ps, steps)
    assert a[0].tobytes() == b[0].tobytes()


def test_normalized_gd_on_a_quartic():
    """x^4 from 10 with beta 2/3: x_t = 10 (1 - 0.1 4^(1/3))^t; beta 0 is SGD; beta 1 moves by lr."""
    x = tensor(np.array(10.0))
    opt = optim.NormalizedGD([x], lr=0.1, beta=2 / 3)
    for t in range(1, 31):
        opt.step(lambda: x**4) if x.requires_grad else opt.step(grads=[4 * x**3])
        assert abs(x.item() / (10 * (1 - 0.1 * 4 ** (1 / 3)) ** t) - 1) <= 1e-12
    ps, steps = data(5, "float64", [(20,), (3,)])
    a, _ = run(optim.NormalizedGD, {"lr": 0.1, "beta": 0.0}, ps, steps)
    b, _ = run(optim.SGD, {"lr": 0.1}, ps, steps)
    assert error(array(a[0]), array(b[0])) <= 1e-15


def test_amsgrad_of_the_paper_solves_its_counterexample():
    """Gradients 3, -1, -1 with x in [-1, 1]: Adam ends at the worst point 1, AMSGrad near the best, -1."""
    ends = {}
    for amsgrad in (False, "paper"):
        x = tensor(np.array(0.0))
        lr = 0.1
        opt = optim.Adam([x], lr=lr, betas=(0.0, 0.1), amsgrad=amsgrad)
        for t in range(1, 3001):
            if not amsgrad:
                opt.param_groups[0]["lr"] = lr / np.sqrt(t)
            opt.step(grads=[tensor(np.array(3.0 if t % 3 == 1 else -1.0))])
            x[...] = min(max(x.item(), -1.0), 1.0)
        ends[amsgrad] = x.item()
    assert ends[False] >= 0.99
    assert ends["paper"] <= -0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.Lion([p], kappa="l3"), "kappa must be one of"),
        (lambda p: optim.Lion([p], kappa="huber"), "needs kappa_param"),
        (lambda p: optim.Lion([p], kappa="lp", kappa_param=0.5), "at least 1"),
        (lambda p: optim.AdEMAMix([p], betas=(0.9, 0.99)), "betas must be 3 numbers"),
        (lambda p: optim.Adam([p], eps_mode="inside"), "eps_mode must be 'after' or 'before'"),
        (lambda p: optim.RMSprop([p], alpha=1.0), r"alpha must be in \[0, 1\)"),
        (lambda p: optim.Prodigy([p], d0=0.0), "d0 must be positive"),
        (lambda p: optim.Prodigy([p], betas=(0.9,)), "betas must be 2 numbers"),
        (lambda p: optim.NAdam([p], lr=-1.0), "lr must be finite and not negative"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make(tensor(np.ones(3)))


def test_state_without_its_numbers_is_refused():
    ps, steps = data(2, "float32", [(3,)])
    params, opt = run(optim.NAdam, {}, ps, steps)
    state = opt.state_dict()
    del state["state.0.mu_product"]
    with pytest.raises(ValueError, match="state 0 has no mu_product"):
        optim.NAdam(params).load_state_dict(state)


@pytest.mark.parametrize(
    ("cls", "hyper", "free"),
    [
        (optim.NAdam, {"eps": 1e-2}, "lr"),
        (optim.AdEMAMix, {"beta3_steps": 4, "betas": (0.5, 0.9, 0.8), "eps": 1e-2}, "alpha"),
        (optim.DoG, {"reps_rel": 0.1}, "lr"),
        (optim.LAMB, {"eps": 1e-2}, "weight_decay"),
        (optim.RMSprop, {"momentum": 0.5, "eps": 1e-2}, "momentum"),
        (optim.Prodigy, {"d0": 0.1, "eps": 1e-2}, "lr"),
    ],
)
def test_meta_gradients_equal_finite_differences(cls, hyper, free):
    rng = np.random.default_rng(3)
    target, w0 = rng.normal(size=4), rng.normal(size=4)

    def outer(w, value):
        opt = cls(**hyper)
        params = {"w": w}
        state = opt.init(params)
        for _ in range(3):
            params, state = opt.update(params, {"w": params["w"] - tensor(target)}, state, **{free: value})
        d = params["w"] - tensor(target)
        return (d * d).sum()

    at = {"alpha": 5.0, "momentum": 0.5, "weight_decay": 0.1}.get(free, 0.7 if cls is optim.DoG else 0.3)
    args = (tensor(w0), pb.tensor(at, dtype=pb.float64))
    got = pb.grad(outer, argnums=(0, 1))(*args)
    h = 1e-5
    numeric = (outer(tensor(w0), pb.tensor(at + h, dtype=pb.float64)).item()
               - outer(tensor(w0), pb.tensor(at - h, dtype=pb.float64)).item()) / (2 * h)  # fmt: skip
    assert abs(numeric) > 1e-6
    assert abs(got[1].item() - numeric) <= 1e-6 * abs(numeric)
    want = np.zeros(4)
    for i in range(4):
        ends = []
        for s in (h, -h):
            x = w0.copy()
            x[i] += s
            ends.append(outer(tensor(x), args[1]).item())
        want[i] = (ends[0] - ends[1]) / (2 * h)
    assert error(array(got[0]), want) <= 1e-6
