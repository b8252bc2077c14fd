"""Learning-rate schedules against closed forms."""

import json
import math
from types import SimpleNamespace

import pytest

import pullback as pb
from pullback.optim import SGD, Adam
from pullback.optim import lr_scheduler as S


def make(lr=1.0, groups=1, cls=SGD, **kw):
    return cls([{"params": [pb.ones(2)], "lr": lr * (i + 1)} for i in range(groups)], **kw)


def lrs(schedule, n):
    out = [schedule.get_last_lr()]
    for _ in range(n):
        schedule.step()
        out.append(schedule.get_last_lr())
    return [row[0] for row in out] if len(out[0]) == 1 else out


def close(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert abs(x - y) <= 1e-14 * max(1.0, abs(y))


def test_step_multistep_exponential_lambda():
    close(lrs(S.StepLR(make(), 2, 0.5), 5), [1, 1, 0.5, 0.5, 0.25, 0.25])
    close(lrs(S.MultiStepLR(make(), [3, 1], 0.1), 4), [1, 0.1, 0.1, 0.01, 0.01])
    close(lrs(S.MultiStepLR(make(), [2, 2], 0.1), 3), [1, 1, 0.01, 0.01])
    close(lrs(S.ExponentialLR(make(), 0.9), 3), [1, 0.9, 0.81, 0.729])
    two = S.LambdaLR(make(groups=2), [lambda t: 1 / (1 + t), lambda t: 0.5**t])
    assert lrs(two, 2) == [[1.0, 2.0], [0.5, 1.0], [1 / 3, 0.5]]


def test_constant_linear_polynomial():
    close(lrs(S.ConstantLR(make(), 0.25, 2), 3), [0.25, 0.25, 1, 1])
    close(lrs(S.LinearLR(make(), 0.5, 1.0, 4), 5), [0.5, 0.625, 0.75, 0.875, 1, 1])
    close(lrs(S.PolynomialLR(make(), 4, 2.0), 5), [1, 0.5625, 0.25, 0.0625, 0, 0])


def test_cosine():
    want = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(25)]
    close(lrs(S.CosineAnnealingLR(make(), 10, 0.1), 24), want)
    restart = lrs(S.CosineAnnealingWarmRestarts(make(), 2, 2), 7)
    half, quarter = 0.5, (1 + math.cos(math.pi / 4)) / 2
    close(restart, [1, half, 1, quarter, half, (1 + math.cos(3 * math.pi / 4)) / 2, 1, (1 + math.cos(math.pi / 8)) / 2])
    s = S.CosineAnnealingWarmRestarts(make(), 4)
    s.step(5.5)
    close(s.get_last_lr(), [(1 + math.cos(math.pi * 1.5 / 4)) / 2])
    assert s.last_epoch == 5


def test_warmup_cosine():
    got = lrs(S.WarmupCosine(make(2.0), 4, 12, 0.1), 15)
    close(got[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    close([got[8], got[12], got[15]], [2 * (0.1 + 0.9 / 2), 0.2, 0.2])


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_warmup_stable_decay(shape):
    got = lrs(S.WarmupStableDecay(make(2.0), 2, 3, 4, 0.5, shape), 12)
    down = {
        "linear": lambda x: 1 - x,
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
        "sqrt": lambda x: 1 - math.sqrt(x),
    }[shape]
    close(got, [1, 2, 2, 2, 2, *[2 * (0.5 + 0.5 * down(k / 4)) for k in range(5)], 1, 1, 1])


def test_one_cycle_moves_rate_and_momentum():
    opt = make(momentum=0.9)
    s = S.OneCycleLR(opt, max_lr=1.0, total_steps=11, pct_start=0.5, anneal_strategy="linear", div_factor=10,
                     final_div_factor=10)  # fmt: skip
    rates, momenta = [], []
    for _ in range(11):
        rates.append(opt.param_groups[0]["lr"])
        momenta.append(opt.param_groups[0]["momentum"])
        s.step()
    close([rates[0], rates[9], rates[10]], [0.1, 1 + (0.01 - 1) * 4.5 / 5.5, 0.01])
    close([momenta[0], momenta[10]], [0.95, 0.95])
    assert min(momenta) < 0.87
    with pytest.raises(ValueError, match="a cycle of 11 steps"):
        s.step()
    adam = make(cls=Adam, betas=(0.9, 0.99))
    S.OneCycleLR(adam, max_lr=1.0, epochs=2, steps_per_epoch=5)
    assert adam.param_groups[0]["betas"] == (0.95, 0.99)


def test_cyclic():
    opt = make(momentum=0.5)
    s = S.CyclicLR(opt, 0.0, 1.0, step_size_up=2, step_size_down=4, base_momentum=0.5, max_momentum=0.9)
    close(lrs(s, 7), [0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0.5])
    close([opt.param_groups[0]["momentum"]], [0.7])
    close(lrs(S.CyclicLR(make(), 0.0, 1.0, 1, mode="triangular2", cycle_momentum=False), 5), [0, 1, 0, 0.5, 0, 0.25])
    close(
        lrs(S.CyclicLR(make(), 0.0, 1.0, 1, mode="exp_range", gamma=0.5, cycle_momentum=False), 3), [0, 0.5, 0, 0.125]
    )
    own = S.CyclicLR(make(), 0.0, 1.0, 1, scale_fn=lambda c: 1 / c, cycle_momentum=False)
    close(lrs(own, 3), [0, 1, 0, 0.5])


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau(mode):
    sign = 1 if mode == "min" else -1
    opt = make()
    s = S.ReduceLROnPlateau(opt, mode=mode, factor=0.5, patience=1, cooldown=1, min_lr=0.3, threshold_mode="abs")
    seen = []
    for value in [5, 4, 4, 4, 4, 4, 4, 4, math.nan, 4]:
        s.step(pb.tensor(float(sign * value)))
        seen.append(opt.param_groups[0]["lr"])
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]
    assert s.best == sign * 4


def test_chained_is_the_product_and_sequential_switches():
    opt = make()
    parts = [S.ExponentialLR(opt, 0.9), S.LinearLR(opt, 0.5, total_iters=2)]
    close(lrs(S.ChainedScheduler(parts), 3), [0.5, 0.9 * 0.75, 0.81, 0.729])
    opt = make()
    parts = [S.LinearLR(opt, 0.25, total_iters=3), S.StepLR(opt, 2, 0.1), S.ExponentialLR(opt, 0.5)]
    seq = S.SequentialLR(opt, parts, [3, 6])
    close(lrs(seq, 8), [0.25, 0.5, 0.75, 1, 1, 0.1, 1, 0.5, 0.25])


BUILDERS = {
    "LambdaLR": lambda o: S.LambdaLR(o, lambda t: 0.95**t),
    "StepLR": lambda o: S.StepLR(o, 3),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [2, 6]),
    "ConstantLR": lambda o: S.ConstantLR(o),
    "LinearLR": lambda o: S.LinearLR(o),
    "ExponentialLR": lambda o: S.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, 7, 0.01),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 3, 2),
    "PolynomialLR": lambda o: S.PolynomialLR(o, 9),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 1.0, 30),
    "CyclicLR": lambda o: S.CyclicLR(o, 0.1, 1.0, 3),
    "WarmupCosine": lambda o: S.WarmupCosine(o, 3, 20),
    "WarmupStableDecay": lambda o: S.WarmupStableDecay(o, 3, 3, 3),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ExponentialLR(o, 0.9), S.StepLR(o, 2, 0.5)]),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.ConstantLR(o), S.ExponentialLR(o, 0.9)], [4]),
    "ReduceLROnPlateau": lambda o: S.ReduceLROnPlateau(o, patience=1),
}


def test_every_schedule_has_a_resume_test():
    assert set(BUILDERS) == set(S.__all__) - {"LRScheduler"}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_resumed_schedule_continues_exactly(name):
    def advance(s, t):
        s.step(1.0 / (1 + t // 4)) if name == "ReduceLROnPlateau" else s.step()

    def state(opt):
        return [(g["lr"], g["momentum"]) for g in opt.param_groups]

    opt = make(0.3, groups=2, momentum=0.9)
    s = BUILDERS[name](opt)
    for t in range(7):
        advance(s, t)
    saved = json.loads(json.dumps(s.state_dict()))
    other = make(0.7, groups=2, momentum=0.9)
    again = BUILDERS[name](other)
    again.load_state_dict(saved)
    if name not in ("OneCycleLR", "CyclicLR"):  # these alone write the momentum
        assert state(other) == state(opt)
    assert again.get_last_lr() == s.get_last_lr()
    for t in range(7, 16):
        advance(s, t)
        advance(again, t)
        assert state(other) == state(opt)
    with pytest.raises(ValueError, match="another number of groups"):
        BUILDERS[name](make(0.3, momentum=0.9)).load_state_dict(saved)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda o: S.StepLR(o, 0), "step_size must be at least 1"),
        (lambda o: S.LambdaLR(o, [lambda t: 1.0] * 2), "2 functions for 1 groups"),
        (lambda o: S.ConstantLR(o, 1.5), "factor must be in"),
        (lambda o: S.LinearLR(o, 0.0), "start_factor must be in"),
        (lambda o: S.LinearLR(o, 0.5, 2.0), "end_factor must be in"),
        (lambda o: S.LinearLR(o, 0.5, 1.0, 0), "total_iters must be at least 1"),
        (lambda o: S.PolynomialLR(o, 0), "total_iters must be at least 1"),
        (lambda o: S.CosineAnnealingLR(o, 0), "T_max must be at least 1"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 0), "T_0 and T_mult"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 2).step(-1), "epoch must not be negative"),
        (lambda o: S.WarmupCosine(o, 5, 5), "0 <= warmup < total"),
        (lambda o: S.WarmupCosine(o, 1, 5, 2.0), "final must be in"),
        (lambda o: S.WarmupStableDecay(o, 1, 1, 0), "decay >= 1"),
        (lambda o: S.WarmupStableDecay(o, 1, 1, 1, -1.0), "final must be in"),
        (lambda o: S.WarmupStableDecay(o, 1, 1, 1, 0.0, "step"), "unknown shape"),
        (lambda o: S.OneCycleLR(o, 1.0), "give total_steps"),
        (lambda o: S.OneCycleLR(o, 1.0, 0), "number of steps must be at least 1"),
        (lambda o: S.OneCycleLR(o, 1.0, 9, pct_start=2.0), "pct_start must be in"),
        (lambda o: S.OneCycleLR(o, 1.0, 9, anneal_strategy="exp"), "unknown anneal_strategy"),
        (lambda o: S.OneCycleLR(o, [1.0, 2.0], 9), "2 values of max_lr for 1 groups"),
        (lambda o: S.CyclicLR(o, 0.1, 1.0, mode="saw"), "unknown mode"),
        (lambda o: S.CyclicLR(o, 0.1, 1.0, 0), "step sizes must be positive"),
        (lambda o: S.ReduceLROnPlateau(o, mode="low"), "unknown mode"),
        (lambda o: S.ReduceLROnPlateau(o, threshold_mode="x"), "unknown threshold_mode"),
        (lambda o: S.ReduceLROnPlateau(o, factor=1.0), "factor must be below 1"),
        (lambda o: S.ChainedScheduler([]), "got no schedules"),
        (lambda o: S.ChainedScheduler([S.ReduceLROnPlateau(o)]), "is no closed form"),
        (lambda o: S.ChainedScheduler([S.StepLR(o, 1), S.StepLR(make(), 1)]), "different optimizers"),
        (lambda o: S.SequentialLR(make(), [S.StepLR(o, 1)], []), "another optimizer"),
        (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)], [3]), "need 0 milestones, got 1"),
        (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)] * 3, [3, 1]), "must ascend"),
        (lambda o: S.StepLR(SGD(), 1), "no parameter groups"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build(make(momentum=0.9))


def test_cycling_needs_a_momentum():
    plain = SimpleNamespace(defaults={"lr": 1.0}, param_groups=[{"params": [], "lr": 1.0}])
    with pytest.raises(ValueError, match="neither momentum nor betas"):
        S.CyclicLR(plain, 0.1, 1.0)
