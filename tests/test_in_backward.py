"""Parameters stepped inside backward, each as its gradient is complete: the same bits, less memory, clear refusals."""

import numpy as np
import pytest
from trainer_cases import net, problem, same, sgd, trainer, weights

import pullback as pb
from pullback import nn, optim
from pullback.data import DataLoader

TENSORWISE = [
    lambda p: optim.SGD(p, lr=0.1),
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda p: optim.RMSprop(p, lr=0.01),
    lambda p: optim.Adagrad(p, lr=0.1),
    lambda p: optim.Adadelta(p, lr=1.0),
    lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    lambda p: optim.AdamW(p, lr=0.01),
    lambda p: optim.AdamW(p, lr=0.01, state="bfloat16"),
    lambda p: optim.NAdam(p, lr=0.01),
    lambda p: optim.RAdam(p, lr=0.01),
    lambda p: optim.Lion(p, lr=1e-3),
    lambda p: optim.Grams(p, lr=0.01),
    lambda p: optim.CautiousAdamW(p, lr=0.01),
    lambda p: optim.DiffGrad(p, lr=0.01),
    lambda p: optim.AdEMAMix(p, lr=0.01),
    lambda p: optim.Gravity(p, lr=0.1),
    lambda p: optim.LAMB(p, lr=0.01),
    lambda p: optim.LDoG(p),
    lambda p: optim.ScheduleFreeAdamW(p, lr=0.01),
    lambda p: optim.SGLD(p, lr=1e-3),
]


class Recurrent(nn.Module):
    """The same layer three times, a parameter that nothing reads, and one that is frozen."""

    def __init__(self):
        self.start, self.cell, self.end = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.idle = nn.Parameter(pb.ones(2))
        self.still = nn.Parameter(pb.full((6,), 0.5), requires_grad=False)

    def forward(self, x):
        h = pb.tanh(self.start(x))
        for _ in range(3):
            h = pb.tanh(self.cell(h)) * self.still
        return self.end(h)


def batch(seed=3):
    rng = np.random.default_rng(seed)
    return pb.tensor(rng.standard_normal((8, 4), dtype=np.float32)), pb.tensor(rng.integers(0, 3, 8))


def steps(make, in_backward, count=3, model=None, dtype=None):
    pb.manual_seed(5)
    model = model or Recurrent()
    if dtype is not None:
        model.to(dtype)
    optimizer = make(model.parameters())
    for i in range(count):
        x, y = batch(i)
        loss = pb.losses.cross_entropy(model(x.astype(dtype or pb.float32)), y)
        if in_backward:
            optimizer.step_in_backward(loss)
        else:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    return model, optimizer


@pytest.mark.parametrize("make", TENSORWISE)
def test_the_bits_of_the_ordinary_step(make):
    ordinary, inside = steps(make, False), steps(make, True)
    same(weights(ordinary[0]), weights(inside[0]))
    a, b = ordinary[1].state_dict(), inside[1].state_dict()
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert value.tolist() == b[key].tolist() if isinstance(value, pb.Tensor) else value == b[key], key


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan", "master"])
def test_bfloat16_parameters(rounding):
    def make(p):
        return optim.AdamW(p, lr=0.01, rounding=rounding)

    same(weights(steps(make, False, dtype=pb.bfloat16)[0]), weights(steps(make, True, dtype=pb.bfloat16)[0]))


def test_groups_prox_and_clip_value():
    def make(params):
        params = list(params)
        return optim.SGD(
            [{"params": params[:3], "lr": 0.2, "prox": ("l1", 0.1)}, {"params": params[3:5], "prox": ("group", 0.3)},
             {"params": params[5:]}], lr=0.05, momentum=0.5,
        )  # fmt: skip

    same(weights(steps(make, False)[0]), weights(steps(make, True)[0]))
    models = [Recurrent(), Recurrent()]
    models[1].load_state_dict(models[0].state_dict())
    for model, inside in zip(models, (False, True), strict=True):
        optimizer, (x, y) = optim.AdamW(model.parameters(), lr=0.01), batch()
        loss = pb.losses.cross_entropy(model(x), y)
        if inside:
            optimizer.step_in_backward(loss, clip_value=1e-3)
        else:
            loss.backward()
            optimizer.step(clip_value=1e-3)
    same(weights(models[0]), weights(models[1]))


def test_a_parameter_is_stepped_after_its_last_use_only():
    """Both uses read the old value: w * (w * x) has the gradient 2 w x."""
    w = pb.tensor([3.0], requires_grad=True)
    loss = (w * (w * 2.0)).sum()
    optim.SGD([w], lr=0.25).step_in_backward(loss)
    assert w.tolist() == [0.0]  # 3 - 0.25 * 12


def test_hooks_roots_and_older_gradients():
    w = pb.tensor([1.0], requires_grad=True)
    w.register_hook(lambda g: g * 10)
    optim.SGD([w], lr=0.1).step_in_backward((w * 2 + w * 3).sum())
    assert w.tolist() == [1.0 - 0.1 * 50] and w.grad is None
    r = pb.tensor(1.0, requires_grad=True)  # the loss itself
    optim.SGD([r], lr=0.5).step_in_backward(r)
    assert r.item() == 0.5
    a, b = pb.tensor([1.0], requires_grad=True), pb.tensor([1.0], requires_grad=True)
    (a * 2 + b * 2).sum().backward()
    optim.SGD([a, b], lr=0.1).step_in_backward((a * 3).sum())  # b has only the older part
    np.testing.assert_allclose([a.item(), b.item()], [0.5, 0.8], rtol=1e-6)


def test_an_output_that_no_cotangent_reaches():
    w, v = pb.tensor([2.0], requires_grad=True), pb.tensor([1.0], requires_grad=True)

    @pb.custom
    def first(x, y):
        return x * 1.0

    @first.pull
    def _(g, out, x, y):
        return g, None

    optim.SGD([w, v], lr=0.5).step_in_backward(first(w, v * 3.0).sum() + (w * 1.0).sum())
    assert w.tolist() == [1.0] and v.tolist() == [1.0]


def test_checkpoints_and_views():
    models = [Recurrent(), Recurrent()]
    models[1].load_state_dict(models[0].state_dict())
    x, y = batch()
    for model, inside in zip(models, (False, True), strict=True):
        f = pb.checkpoint(lambda v, m=model: m(v) + (v @ m.start.weight.T)[:, :3])
        optimizer = sgd(model)
        loss = pb.losses.cross_entropy(f(x), y)
        if inside:
            optimizer.step_in_backward(loss)
        else:
            loss.backward()
            optimizer.step()
    same(weights(models[0]), weights(models[1]))


def test_memory_falls_by_the_gradients():
    """Four square layers. Ordinary: all gradients at the end. Inside: one at a time, beside equal activations."""
    width, depth = 256, 4
    peaks = {}
    for inside in (False, True):
        model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
        optimizer = sgd(model)
        x = pb.ones((2, width))
        loss = model(x).sum()
        pb._core.reset_peak_memory()
        before = pb.memory.stats()["current"]
        if inside:
            optimizer.step_in_backward(loss)
        else:
            loss.backward()
            optimizer.step()
        peaks[inside] = pb.memory.stats()["peak"] - before
        del loss, optimizer
    gradient = 4 * width * width
    assert peaks[False] >= 0.9 * depth * gradient  # what backward frees on its way is smaller than that
    small = 8 * 4 * 2 * width  # activations and their cotangents
    assert peaks[True] <= peaks[False] - (depth - 1) * gradient + small


# ---- the trainer


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_trainer(accumulate):
    data, models = problem(), [net(dropout=0.2), net(dropout=0.2)]
    for model, update in zip(models, ("after", "in_backward"), strict=True):
        t = trainer(model, optimizer=optim.AdamW(model.parameters(), lr=0.01), update=update, accumulate=accumulate,
                    schedule=lambda step: 0.01 / (step + 1), ema=0.9)  # fmt: skip
        history = t.fit(DataLoader(data, 4), epochs=2)
        assert len(history.steps) == (10 if accumulate == 1 else 4)
        model.average = weights_of(t.ema)
    same(weights(models[0]), weights(models[1]))
    assert models[0].average == models[1].average


def weights_of(ema):
    return [t.tolist() for t in ema.state_dict().values() if isinstance(t, pb.Tensor)]


def test_a_resumed_run_has_the_same_bits(tmp_path):
    models = [net(), net()]

    def fit(model, folder, epochs):
        t = trainer(model, optimizer=optim.AdamW(model.parameters()), update="in_backward", checkpoint_dir=folder)
        return t.fit(DataLoader(problem(), 8, shuffle=True), epochs=epochs)

    fit(models[0], tmp_path / "a", 4)
    fit(net(), tmp_path / "b", 2)
    fit(models[1], tmp_path / "b", 4)
    same(weights(models[0]), weights(models[1]))
    files = [sorted((tmp_path / d).iterdir())[-1].read_bytes() for d in "ab"]
    assert files[0] == files[1]


# ---- refusals


@pytest.mark.parametrize("make", [lambda p: optim.DoG(p), lambda p: optim.Prodigy(p), lambda p: optim.NormalizedGD(p)])
def test_rules_with_sums_over_all_gradients(make):
    model = net()
    with pytest.raises(pb.GraphError, match="needs sums over all gradients"):
        trainer(model, optimizer=make(model.parameters()), update="in_backward")
    loss = model(pb.ones((1, 4))).sum()
    with pytest.raises(pb.GraphError, match="needs sums over all gradients"):
        make(model.parameters()).step_in_backward(loss)


@pytest.mark.parametrize(
    "make", [lambda p: optim.Lookahead(optim.SGD(p)), lambda p: optim.Muon(p), lambda p: optim.ExpScaledSGD(p)]
)
def test_optimizers_with_a_step_of_their_own(make):
    model = net()
    with pytest.raises(pb.GraphError, match="does more in a step than its rule"):
        trainer(model, optimizer=make([model[0].weight]), update="in_backward")


def test_what_the_trainer_refuses():
    model = net()
    cases = [
        ({"clip_norm": 1.0}, "clip_norm looks at all gradients"),
        ({"optimizer": {"a": sgd(model), "b": sgd(model)}}, "several optimizers"),
        ({"optimizer": optim.SAM(sgd(model))}, "evaluates the loss itself"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=f'update="in_backward" is impossible here: .*{message}'):
            trainer(model, update="in_backward", **options)
    with pytest.raises(TypeError, match=r"needs an optimizer of pb\.optim, got object"):
        trainer(model, update="in_backward", optimizer=object())

    def manual(model, batch, ctx):
        ctx.backward(model(batch[0]).sum())

    with pytest.raises(ValueError, match=r"ctx\.backward cannot be used"):
        trainer(model, loss=None, step=manual, update="in_backward").fit([problem()[:]], steps=1)


def test_losses_without_a_graph():
    w = pb.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(pb.GraphError, match="must be one number that depends on a parameter"):
        optim.SGD([w]).step_in_backward(w * 2)
    with pytest.raises(pb.GraphError, match="must be one number that depends on a parameter"):
        optim.SGD([w]).step_in_backward(pb.tensor(1.0))
    with pytest.raises(pb.GraphError, match="no parameter has a gradient"):
        optim.SGD([w]).step_in_backward(pb.tensor(1.0, requires_grad=True) * 2)


def test_a_detached_use_that_backward_still_reads_is_refused():
    """w is written when its only edge is done; a slot that holds its old value without an edge would be wrong."""
    w, x = pb.tensor([2.0], requires_grad=True), pb.tensor([1.0], requires_grad=True)
    early = x * w.detach()
    loss = (early * 1.0 + w * 3.0).sum()
    with pytest.raises(pb.GraphError, match="modified in place"):
        optim.SGD([w], lr=0.1).step_in_backward(loss)
