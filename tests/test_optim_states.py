"""Formats of optimizer states and of 16-bit parameters: accuracy, unbiasedness, grouping, files, errors."""

import math

import numpy as np
import pytest
from optim_cases import array, data, error, ref_adam, tensor

import pullback as pb
from pullback import _core as C
from pullback import optim

STATES = ("float32", "bfloat16", "int8")
ROUNDINGS = ("nearest", "stochastic", "kahan", "master")
HALVES = (pb.float16, pb.bfloat16)
RULES = [
    (optim.SGD, {"momentum": 0.9}),
    (optim.RMSprop, {"momentum": 0.5}),
    (optim.RMSprop, {"centered": True}),
    (optim.Adagrad, {}),
    (optim.Adadelta, {}),
    (optim.Adam, {"amsgrad": True}),
    (optim.Adam, {"amsgrad": "paper"}),
    (optim.AdamW, {}),
    (optim.NAdam, {}),
    (optim.RAdam, {}),
    (optim.Lion, {}),
    (optim.Lion, {"kappa": "l2"}),
    (optim.Grams, {}),
    (optim.CautiousAdamW, {}),
    (optim.DiffGrad, {}),
    (optim.AdEMAMix, {}),
    (optim.OptAMSGrad, {}),
    (optim.ExpScaledSGD, {"scales": [1.0]}),
    (optim.Gravity, {"alpha": 0.0}),
    (optim.SGLD, {"temperature": 0.0}),
    (optim.LAMB, {}),
    (optim.DoG, {}),
    (optim.LDoG, {}),
    (optim.Prodigy, {}),
    (optim.ScheduleFreeAdamW, {}),
    (optim.AdagradNorm, {}),
    (optim.NormalizedGD, {}),
]
IDS = [f"{cls.__name__}-{'-'.join(map(str, kw.values()))}" for cls, kw in RULES]


def slots(opt, p):
    """(codes or values, scales) as they lie in memory."""
    return [s if isinstance(s, tuple) else (s, None) for s in opt._driver.stored_state(p)[1] if s is not None]


def widened(opt, p):
    return [array(s).astype(np.float64) for s in opt._driver.get_state(p)[1] if s is not None]


def levels(signed):
    """The 8-bit map from its definition: two octaves share 2^k codes, the two least codes go on in equal steps."""
    codes = np.arange(128 if signed else 256)
    k = np.floor(np.log2(np.maximum(codes, 1)))
    place = codes / 2**k - 1  # in the range of 2^k codes
    size = np.where(place < 0.5, 1 + 2 * place, 4 * place) * 4.0 ** (k - 8)
    size = np.where(codes < 2, codes * 2.0**-15, size)
    return size / size[-1]


# ---- every rule


@pytest.mark.parametrize("state", ["bfloat16", "int8"])
@pytest.mark.parametrize(("cls", "words"), RULES, ids=IDS)
def test_every_rule_follows_its_float32_form(cls, words, state):
    p, grads = data((5000,), 12, "float32")
    grads = [g * (0.2 + np.abs(np.sin(np.arange(5000)))).astype("float32") for g in grads]

    def result(fmt):
        x = tensor(p)
        opt = cls([x], **words, state=fmt)
        for g in grads:
            opt.step(grads=[tensor(g)])
        return array(x), opt

    want, _ = result("float32")
    got, opt = result(state)
    moved = np.linalg.norm(want - p)
    assert moved > 0
    # Sign rules turn a rounding of the state into a whole step of the few elements near 0.
    tolerance = {"bfloat16": 0.03, "int8": 0.15}[state]
    if cls in (optim.Lion, optim.CautiousAdamW) and not words:
        tolerance *= 2
    assert np.linalg.norm(got - want) <= tolerance * moved
    row = next(r for r in C.optim_rules() if r["name"] == opt._rule(opt.param_groups[0]))
    kinds = [s[0].dtype for s in slots(opt, opt._parameters()[0])][: len(row["slots"])]
    narrow = {"bfloat16": pb.bfloat16, "int8": pb.uint8}[state]
    assert kinds == [pb.float32 if row["exact"] >> j & 1 else narrow for j in range(len(row["slots"]))]


def test_rules_of_two_gradients_keep_their_points_exact():
    p, grads = data((5000,), 6, "float32")

    def result(state):
        x = tensor(p)
        x.requires_grad = True
        opt = optim.UDoG([x], lr=1.0, reps_rel=1e-3, state=state)
        for g in grads:
            opt.step(lambda g=g: (x * tensor(g)).sum())
        return array(x.detach()), slots(opt, x)

    want, _ = result("float32")
    got, kept = result("int8")
    assert np.linalg.norm(got - want) <= 0.1 * np.linalg.norm(want - p)
    assert [s[0].dtype for s in kept] == [pb.float32] * 3 + [pb.uint8]


def test_arithmetic_is_float32_whatever_the_storage():
    """One step from given states: the rule sees the widened states, and only the store rounds."""
    n = 6000
    p, (g,) = data((n,), 1, "float32")
    rng = np.random.default_rng(5)
    m, v = rng.normal(size=n).astype("float32"), rng.uniform(0.1, 2.0, size=n).astype("float32")
    for state in STATES:
        x = tensor(p)
        opt = optim.Adam([x], lr=0.1, state=state)
        opt._driver.set_state(x, 3, [tensor(m), tensor(v)], [])
        opt.step(grads=[tensor(np.zeros(n, np.float32))])  # converts
        start, before = widened(opt, x), array(x).astype(np.float64)
        opt.step(grads=[tensor(g)])
        first = 0.9 * start[0] + 0.1 * g.astype(np.float64)
        second = 0.999 * start[1] + 0.001 * g.astype(np.float64) ** 2
        want = before - 0.1 * (first / (1 - 0.9**5)) / (np.sqrt(second / (1 - 0.999**5)) + 1e-8)
        assert np.abs(array(x) - want).max() <= 2e-6
        for got, exact in zip(widened(opt, x), (first, second), strict=True):
            if state == "float32":
                bound = 5e-7
            elif state == "bfloat16":
                bound = 2.0**-7 * np.abs(exact)
            else:
                top = np.abs(exact).reshape(-1)
                top = np.repeat([top[i : i + 256].max() for i in range(0, n, 256)], 256)[:n]
                bound = top * (4.2 / 127) * np.maximum(np.abs(exact) / top, 0.25)
            assert np.all(np.abs(got - exact) <= bound)


# ---- the 8-bit map


@pytest.mark.parametrize("signed", [False, True])
def test_8_bit_codes_are_those_of_the_map(signed):
    table = levels(signed)
    rng = np.random.default_rng(1)
    n = 256 * 40 + 77
    values = np.abs(rng.normal(size=n)) * np.repeat(10.0 ** rng.uniform(-9, 9, size=n // 256 + 1), 256)[:n]
    values[: 256 * 4] *= 10.0 ** rng.uniform(-6, 0, size=256 * 4)
    if signed:
        values *= np.where(rng.uniform(size=n) < 0.5, -1.0, 1.0)
    values = values.astype("float32")
    x = tensor(np.zeros(n, np.float32))
    opt = optim.SGD([x], lr=0.0, momentum=1.0, state="int8")
    opt._driver.set_state(x, 1, [tensor(values)], [])
    opt.step(grads=[tensor(np.zeros(n, np.float32))])
    (codes, scale), (got,) = slots(opt, x)[0], widened(opt, x)
    assert codes.dtype == pb.uint8
    assert scale.shape == (math.ceil(n / 256),)
    codes = array(codes)
    for b in range(0, n, 256):
        part, code, exact = got[b : b + 256], codes[b : b + 256], values[b : b + 256].astype(np.float64)
        top = np.abs(exact).max()
        size = np.abs(code.astype(np.int8)) if signed else code
        sign = np.where(code.astype(np.int8) < 0, -1, 1) if signed else 1
        assert np.abs(part - sign * table[size] * top).max() <= 3e-6 * top
        # each value lies on a level next to it, twice rounded: by the conversion and by the step
        place = np.interp(np.abs(exact) / top, table, np.arange(len(table)))
        assert np.abs(place - size).max() <= 1.51
        assert np.all(part[exact > 0] > 0) or signed


def test_8_bit_states_keep_zero_extremes_and_non_finite_values_loud():
    n = 4096
    for value in (0.0, 1e-38, 1e-30, 1e30, -1e30):
        x = tensor(np.zeros(n, np.float32))
        opt = optim.SGD([x], lr=0.0, momentum=1.0, state="int8")
        opt._driver.set_state(x, 1, [tensor(np.full(n, value, np.float32))], [])
        opt.step(grads=[tensor(np.zeros(n, np.float32))])
        (got,) = widened(opt, x)
        assert np.all(np.isfinite(got))
        assert np.abs(got - value).max() <= abs(value) * (0.02 if abs(value) > 2e-38 else 1)
    for bad in (math.nan, math.inf):
        x = tensor(np.zeros(n, np.float32))
        opt = optim.SGD([x], lr=0.0, momentum=1.0, state="int8")
        g = np.ones(n, np.float32)
        g[300] = bad
        opt.step(grads=[tensor(g)])
        (got,) = widened(opt, x)
        assert not np.isfinite(got[300])
        assert np.abs(got[:256] - 1).max() <= 0.01
        assert np.abs(got[512:] - 1).max() <= 0.01


def test_small_tensors_and_float64_keep_their_precision():
    small, large, double = (tensor(np.ones(n, t)) for n, t in ((4095, "f4"), (4096, "f4"), (5000, "f8")))
    for state, kinds in (
        ("int8", (pb.float32, pb.uint8, pb.float64)),
        ("bfloat16", (pb.bfloat16, pb.bfloat16, pb.float64)),
        ("float32", (pb.float32, pb.float32, pb.float64)),
    ):
        opt = optim.SGD([small, large, double], momentum=0.9, state=state)
        opt.step(grads=[tensor(np.ones(p.shape, str(p.dtype.name))) for p in (small, large, double)])
        assert tuple(slots(opt, p)[0][0].dtype for p in (small, large, double)) == kinds


# ---- stochastic rounding


def deviation(draws, exact, step):
    """Of the mean of draws from exact, in standard deviations of the mean of roundings by one `step`."""
    share = (exact / step) % 1.0
    sigma = step * math.sqrt(max(share * (1 - share), 1e-12) / draws.size)
    return abs(draws.mean() - exact) / sigma


@pytest.mark.parametrize("value", [1.0 + 2**-9, 1.0 + 2**-12, 1.3, -1.7, 3e-5, 0.999])
def test_stochastic_rounding_of_states_is_unbiased(value):
    n = 200_000
    value = float(np.float32(value))
    x = tensor(np.zeros(n, np.float32))
    opt = optim.SGD([x], lr=0.0, momentum=0.0 + 1e-30, state="bfloat16")
    opt._driver.set_state(x, 1, [tensor(np.zeros(n, np.float32))], [])
    opt.step(grads=[tensor(np.full(n, value, np.float32))])
    (got,) = widened(opt, x)
    step = 2.0 ** (math.floor(math.log2(abs(value))) - 7)
    assert set(np.unique(got)) <= {math.floor(value / step) * step, math.ceil(value / step) * step}
    assert deviation(got, value, step) <= 4


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("share", [0.9, 0.51, 0.3, 0.013, 1e-3, 4e-5])
def test_8_bit_stores_are_unbiased(share, sign):
    n = 256 * 1000
    g = np.full((1000, 256), share, np.float32)
    g[:, 17] = 1.0
    g[:, 18] = sign  # -1: a block with signs
    x = tensor(np.zeros(g.size, np.float32))
    opt = optim.SGD([x], lr=0.0, momentum=1e-30, state="int8")
    opt._driver.set_state(x, 1, [tensor(np.zeros(n, np.float32))], [])
    opt.step(grads=[tensor(g.ravel())])
    got = np.delete(widened(opt, x)[0].reshape(1000, 256), [17, 18], axis=1)
    table = levels(sign < 0)
    above = int(np.searchsorted(table, share))
    step = table[above] - table[above - 1]
    assert np.abs(np.unique(got) - table[above]).min() <= 1e-5 * share
    chance = (share - table[above - 1]) / step
    sigma = step * math.sqrt(max(chance * (1 - chance), 1e-9) / got.size)
    assert abs(got.mean() - share) <= 4 * sigma + 2e-6 * share


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("value", [1.0 + 2**-13, 1.3, -1.7, 3e-6, -5.1e-7, 1000.3])
def test_stochastic_rounding_of_parameters_is_unbiased(dtype, value):
    n = 200_000
    value = float(np.float32(value))
    x = tensor(np.zeros(n, np.float32)).astype(dtype)
    optim.SGD([x], lr=1.0, rounding="stochastic").step(grads=[tensor(np.full(n, -value, np.float32))])
    got = array(x.astype(pb.float32)).astype(np.float64)
    digits, least = (10, -24) if dtype == pb.float16 else (7, -133)
    step = 2.0 ** max(math.floor(math.log2(abs(value))) - digits, least)
    assert set(np.unique(got)) <= {math.floor(value / step) * step, math.ceil(value / step) * step}
    assert deviation(got, value, step) <= 4


def test_random_bits_differ_between_steps_slots_and_neighbours():
    n = 1 << 16
    x = tensor(np.zeros(n, np.float32))
    opt = optim.Adam([x], lr=0.0, betas=(1e-7, 1e-7), state="bfloat16")
    ups = []
    for _ in range(3):
        opt.step(grads=[tensor(np.full(n, 1 + 2**-8, np.float32))])
        m, v = widened(opt, x)
        ups += [m > 1.0 + 2**-9, v > v.min()]
    rows = np.array([u - u.mean() for u in ups])
    rows = np.vstack([rows, np.roll(rows[0], 1), np.roll(rows[0], 128)])
    cross = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(cross).max() <= 6 / math.sqrt(n)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_bits_do_not_depend_on_threads_order_or_grouping(state, rounding):
    shapes = [(70003,), (), (3, 7), (0,), (300, 170), (4096,)]
    pairs = [data(s, 3, "float32", seed=i) for i, s in enumerate(shapes)]

    def result(threads, order, cut):
        before = C.get_num_threads()
        C.set_num_threads(threads)
        try:
            params = [tensor(p).astype((pb.bfloat16, pb.float32, pb.float16)[i % 3]) for i, (p, _) in enumerate(pairs)]
            split = [order[:cut], order[cut:]] if cut else [order]
            opts = [optim.AdamW([params[i] for i in part], lr=0.01, state=state, rounding=rounding) for part in split]
            for t in range(3):
                for opt, part in zip(opts, split, strict=True):
                    opt.step(grads=[tensor(pairs[i][1][t]) for i in part])
            kept = [array(s).tobytes() for i in range(len(shapes)) for o in opts for s in all_tensors(o, params[i])]
            return [array(x.astype(pb.float32)).tobytes() for x in params], kept
        finally:
            C.set_num_threads(before)

    def all_tensors(opt, p):
        stored = opt._driver.stored_state(p)
        if stored is None:
            return []
        flat = [t for s in stored[1] for t in (s if isinstance(s, tuple) else (s,))]
        return [t.astype(pb.float32) for t in (*flat, stored[3]) if t is not None]

    plain = list(range(len(shapes)))
    first = result(1, plain, 0)
    assert first == result(2, plain, 0)
    assert first == result(3, plain[::-1], 4)
    assert first == result(2, plain[3:] + plain[:3], 1)


# ---- parameters of 16 bits


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_small_steps_reach_16_bit_parameters(rounding, dtype):
    """400 steps of a 40th of an ulp each."""
    n = 4000
    rng = np.random.default_rng(0)
    start = array(tensor(rng.uniform(1.1, 1.4, size=n).astype("float32")).astype(dtype).astype(pb.float32))
    ulp = 2.0**-10 if dtype == pb.float16 else 2.0**-7
    x = tensor(start).astype(dtype)
    opt = optim.SGD([x], lr=ulp / 40, rounding=rounding)
    for _ in range(400):
        opt.step(grads=[tensor(np.full(n, -1, np.float32))])
    moved = (array(x.astype(pb.float32)) - start) / ulp
    if rounding == "nearest":
        assert np.all(moved == 0)
    elif rounding == "stochastic":
        assert abs(moved.mean() - 10) <= 4 * math.sqrt(400 / 40 / n)
        assert 1 <= moved.std() <= 6
    else:
        assert np.abs(moved - 10).max() <= 0.51


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(5000,), (7,), (60, 70)])
def test_master_weights_are_a_float32_run(dtype, shape):
    p, grads = data(shape, 20, "float32")
    p = array(tensor(p).astype(dtype).astype(pb.float32))
    x, y = tensor(p).astype(dtype), tensor(p)
    a, b = optim.AdamW([x], lr=0.01, rounding="master"), optim.AdamW([y], lr=0.01)
    for g in grads:
        a.step(grads=[tensor(g)], clip_norm=3.0)
        b.step(grads=[tensor(g)], clip_norm=3.0)
    master = a.state_dict()["state.0.master"]
    assert array(master).tobytes() == array(y).tobytes()
    assert array(x.astype(pb.float32)).tobytes() == array(y.astype(dtype).astype(pb.float32)).tobytes()
    want = ref_adam(p.astype(np.float64), [], 0.01)
    assert want.shape == p.shape


@pytest.mark.parametrize("rounding", ["kahan", "master"])
def test_a_parameter_written_by_others_counts(rounding):
    x = tensor(np.full(5000, 1.3, np.float32)).astype(pb.bfloat16)
    opt = optim.SGD([x], lr=2.0**-12, rounding=rounding)
    g = tensor(np.full(5000, 1, np.float32))
    for _ in range(5):
        opt.step(grads=[g])
    x[...] = 0.5
    opt.step(grads=[g])
    if rounding == "master":
        assert np.all(array(opt.state_dict()["state.0.master"]) == np.float32(0.5 - 2.0**-12))
    rest = array(opt.state_dict().get("state.0.compensation", tensor(np.float32(0))).astype(pb.float32))
    assert rounding == "master" or np.all(rest == -(2.0**-12))


def test_kahan_and_master_take_over_from_each_other_and_strided_parameters():
    base = tensor(np.full((40, 300), 1.25, np.float32)).astype(pb.bfloat16)
    x = base[:, ::2]
    assert not x.is_contiguous() if hasattr(x, "is_contiguous") else True
    opt = optim.SGD([x], lr=2.0**-12, rounding="kahan")
    g = tensor(np.ones(x.shape, np.float32))
    opt.step(grads=[g])
    opt.param_groups[0]["rounding"] = "master"
    opt.step(grads=[g])
    assert np.all(array(opt.state_dict()["state.0.master"]) == np.float32(1.25 - 2.0**-11))
    opt.param_groups[0]["rounding"] = "kahan"
    opt.step(grads=[g])
    rest = array(opt.state_dict()["state.0.compensation"].astype(pb.float32))
    assert np.all(rest == np.float32(-3 * 2.0**-12))
    assert np.all(array(base.astype(pb.float32)) == 1.25)
    opt.param_groups[0]["rounding"] = "nearest"
    opt.step(grads=[g])
    assert "state.0.compensation" not in opt.state_dict()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_prox_and_sam_work_on_rounded_parameters(rounding):
    p, _ = data((4500,), 1, "float32")
    x = tensor(p).astype(pb.bfloat16)
    opt = optim.SGD([{"params": [x], "prox": ("ball", 2.0)}], lr=0.1, rounding=rounding)
    for _ in range(3):
        opt.step(grads=[tensor(np.zeros(4500, np.float32))])
    assert abs(np.linalg.norm(array(x.astype(pb.float32)).astype(np.float64)) - 2.0) <= 0.01
    y = tensor(p).astype(pb.bfloat16)
    y.requires_grad = True
    sam = optim.SAM(optim.SGD([y], lr=2.0**-14, rounding=rounding), rho=0.5)
    before = array(y.astype(pb.float32))
    for _ in range(3):
        sam.step(lambda: y.astype(pb.float32).sum())
    if rounding == "master":
        master = array(sam.state_dict()["base.state.0.master"])
        assert np.abs(master - (before - 3 * 2.0**-14)).max() <= 1e-6
    assert np.abs(array(y.astype(pb.float32)) - before).max() <= 2.0**-6


# ---- passes


def test_sums_are_those_of_clipped_gradients():
    """Rules with sums and clip_norm: sums are scaled or formed again; both equal clipping first."""
    for cls, words in (
        (optim.DoG, {"reps_rel": 1e-2}),
        (optim.LDoG, {"reps_rel": 1e-2, "weight_decay": 0.3}),
        (optim.NormalizedGD, {"beta": 0.5}),
        (optim.AdagradNorm, {}),
        (optim.Gravity, {"alpha": 0.0}),
        (optim.LAMB, {}),
        (optim.Lion, {"kappa": "l2"}),
        (optim.Prodigy, {}),
    ):
        for bound in (0.7, 1e9):
            p, grads = data((3000,), 4, "float64")
            q, more = data((40,), 4, "float64")
            x, y, u, w = tensor(p), tensor(q), tensor(p), tensor(q)
            a, b = cls([x, y], **words), cls([u, w], **words)
            for g, h in zip(grads, more, strict=True):
                factor = min(1.0, bound / (math.sqrt((g**2).sum() + (h**2).sum()) + 1e-6))
                a.step(grads=[tensor(8 * g), tensor(8 * h)], clip_norm=bound, scale=8.0)
                b.step(grads=[tensor(g * factor), tensor(h * factor)])
            assert error(array(x), array(u)) <= 1e-12
            assert error(array(y), array(w)) <= 1e-12


@pytest.mark.parametrize("state", STATES)
def test_a_skipped_step_changes_nothing(state):
    p, grads = data((5000,), 2, "float32")
    x = tensor(p).astype(pb.bfloat16)
    opt = optim.AdamW([x], lr=0.1, state=state, rounding="master")
    opt.step(grads=[tensor(grads[0])])
    before = {k: array(v.astype(pb.float32)).tobytes() for k, v in opt.state_dict().items() if isinstance(v, pb.Tensor)}
    bits = array(x.astype(pb.float32)).tobytes()
    grads[1][7] = math.nan
    opt.step(grads=[tensor(grads[1])], clip_norm=1.0)
    assert opt.last_skipped
    after = {k: array(v.astype(pb.float32)).tobytes() for k, v in opt.state_dict().items() if isinstance(v, pb.Tensor)}
    assert after == before
    assert array(x.astype(pb.float32)).tobytes() == bits
    assert opt.state_dict()["state.0.step"] == 1


# ---- a small model


@pytest.mark.parametrize("state", ["bfloat16", "int8"])
def test_training_ends_where_float32_ends(state):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(256, 40)).astype("float32")
    t = np.tanh(x @ rng.normal(size=(40, 3)).astype("float32") / 6).astype("float32")

    def loss_after(fmt):
        pb.random.manual_seed(0)
        model = pb.nn.Sequential(pb.nn.Linear(40, 128), pb.nn.Tanh(), pb.nn.Linear(128, 3))
        opt = optim.AdamW(model.parameters(), lr=3e-3, state=fmt)
        for _ in range(150):
            loss = ((model(tensor(x)) - tensor(t)) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
        return loss.item()

    assert loss_after(state) <= 1.1 * loss_after("float32")
