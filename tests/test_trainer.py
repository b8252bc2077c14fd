"""The trainer against steps made by hand; validation, metrics, averages and schedules."""

import functools
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from trainer_cases import cross_entropy, net, problem, same, sgd, trainer, weights

import pullback as pb
from pullback import nn
from pullback.data import DataLoader
from pullback.train import (
    LRMonitor,
    Trainer,
)

# ---- steps


def test_a_fit_is_the_loop_one_would_write():
    model, by_hand = net(), net()
    data = problem()
    history = trainer(model).fit(DataLoader(data, 8), epochs=3)
    optimizer, losses = sgd(by_hand), []
    for _ in range(3):
        for x, y in DataLoader(data, 8):
            loss = cross_entropy(by_hand(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    same(weights(model), weights(by_hand))
    assert [r["loss"] for r in history.steps] == losses
    assert [r["step"] for r in history.steps] == list(range(1, 10))
    assert [r["epoch"] for r in history.steps] == [1] * 3 + [2] * 3 + [3] * 3
    # The epoch's mean counts items: batches of 8, 8 and 4.
    expected = [(8 * a + 8 * b + 4 * c) / 20 for a, b, c in zip(losses[::3], losses[1::3], losses[2::3], strict=True)]
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-12)
    assert model.training and "9 steps, 3 epochs" in repr(history) and history.seconds > 0 and history.made == 9


def test_steps_end_inside_an_epoch_and_numbers_are_totals():
    t = trainer(net())
    loader = DataLoader(problem(), 8)
    assert len(t.fit(loader, steps=4).steps) == 4
    assert (t.step, t.epoch, t.batch) == (4, 1, 1) and [r["epoch"] for r in t.history.epochs] == [1, 2]
    assert len(t.fit(loader, epochs=2).steps) == 6  # goes on with the second batch of the epoch
    assert [r["epoch"] for r in t.history.epochs] == [1, 2]
    whole = trainer(net())
    whole.fit(loader := DataLoader(problem(), 8), epochs=2)
    same(weights(t.model), weights(whole.model))
    assert t.history.epochs == whole.history.epochs and loader.position == 0
    assert len(t.fit(loader, epochs=2).steps) == 6 and len(t.fit(loader, epochs=9, steps=7).steps) == 7


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (6, 6, 6, 2), (5, 1), (7,)])
def test_accumulation_equals_the_full_batch(sizes):
    """Windows of batches of any size give the gradient of the mean over all their items."""
    data = problem(sum(sizes))
    ends = np.cumsum([0, *sizes])
    batches = [data[int(a) : int(b)] for a, b in itertools.pairwise(ends)]
    full, parts = net(), net()
    trainer(full).fit([data[:]], steps=1)
    history = trainer(parts, accumulate=len(sizes)).fit(batches, steps=1)
    assert len(history.steps) == 1
    for name, w in weights(parts).items():
        np.testing.assert_allclose(w, weights(full)[name], atol=2e-7, err_msg=name)


def test_a_short_last_window_has_its_own_normalisation():
    data = problem(22)
    model, by_hand = net(), net()
    history = trainer(model, accumulate=3).fit(DataLoader(data, 4), epochs=1)  # batches 4 4 4 | 4 4 2
    assert len(history.steps) == 2
    trainer(by_hand).fit([data[:12], data[12:]], epochs=1)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, weights(by_hand)[name], atol=2e-7, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
def test_accumulation_counts_only_what_the_loss_counts(weighted):
    x, y = problem(12)[:]
    y = pb.where(pb.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1]) == 1, pb.tensor(-1), y)
    options = {"ignore_index": -1} | ({"weight": pb.tensor([1.0, 2.0, 5.0])} if weighted else {})
    loss = functools.partial(cross_entropy, **options)
    full, parts = net(), net()
    trainer(full, loss=loss).fit([(x, y)], steps=1)
    trainer(parts, loss=loss, accumulate=3).fit([(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)], steps=1)
    for name, w in weights(parts).items():
        np.testing.assert_allclose(w, weights(full)[name], atol=2e-7, err_msg=name)


def test_accumulation_with_a_sum_a_count_and_nothing_to_count():
    x, y = problem(12)[:]
    batches = [(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)]
    full, parts = net(), net()
    loss = functools.partial(cross_entropy, reduction="sum")
    trainer(full, loss=loss, optimizer=sgd(full, 0.01)).fit([(x, y)], steps=1)
    trainer(parts, loss=loss, optimizer=sgd(parts, 0.01), accumulate=3).fit(batches, steps=1)
    for name, w in weights(parts).items():
        np.testing.assert_allclose(w, weights(full)[name], atol=2e-7, err_msg=name)
    model, by_hand = net(), net()
    trainer(model, accumulate=3, count=lambda batch: 1.0 if batch is batches[0] else 0.0).fit(batches, steps=1)
    trainer(by_hand).fit(batches[:1], steps=1)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, weights(by_hand)[name], atol=2e-7, err_msg=name)
    model = net()
    ignored = functools.partial(cross_entropy, ignore_index=0)
    trainer(model, loss=ignored, accumulate=2).fit([(x, y * 0), (x, y * 0)], steps=1)
    same(weights(model), weights(net()))


def test_clip_norm():
    model, by_hand = net(), net()
    x, y = problem()[:]
    trainer(model, clip_norm=0.01).fit([(x, y)], steps=1)
    cross_entropy(by_hand(x), y).backward()
    norm = math.sqrt(sum(float(pb.sum(p.grad * p.grad)) for p in by_hand.parameters()))
    assert norm > 0.01
    for name, p in by_hand.named_parameters():
        expected = np.asarray(p.tolist()) - 0.1 * np.asarray(p.grad.tolist()) * 0.01 / norm
        np.testing.assert_allclose(weights(model)[name], expected, rtol=1e-5, atol=1e-7)


def test_dict_batches_with_a_step_function():
    class Data:
        def __len__(self):
            return 20

        def __getitem__(self, i):
            return {"x": problem()[i][0], "y": problem()[i][1]}

    seen = []

    def step(model, batch, ctx):
        prediction = model(batch["x"])
        seen.append((ctx.step, ctx.epoch, ctx.training))
        return {"loss": cross_entropy(prediction, batch["y"]), "largest": pb.max(prediction)}

    model, plain = net(), net()
    t = Trainer(model, sgd(model), step=step, progress=False)
    history = t.fit(DataLoader(Data(), 8), DataLoader(Data(), 20), epochs=2)
    trainer(plain).fit(DataLoader(problem(), 8), epochs=2)
    same(weights(model), weights(plain))
    assert seen[:4] == [(1, 1, True), (2, 1, True), (3, 1, True), (4, 1, False)]
    assert set(history.epochs[0]) == {"epoch", "step", "loss", "largest", "valid_loss", "valid_largest"}


class Gan(nn.Module):
    def __init__(self):
        self.g = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
        self.d = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


def gan_step(model, batch, ctx):
    bce = pb.losses.bce_with_logits
    noise = pb.random.normal((batch.shape[0], 2))
    real, fake = model.d(batch), model.d(model.g(noise).detach())
    d = bce(real, pb.ones(real.shape)) + bce(fake, pb.zeros(fake.shape))
    ctx.backward(d, "d")
    ctx.update("d")
    score = model.d(model.g(noise))
    g = bce(score, pb.ones(score.shape))
    ctx.backward(g, "g")
    ctx.update("g")
    return {"d": d, "g": g}


def gan_trainer(**more):
    pb.manual_seed(3)
    model = Gan()
    optimizers = {part: pb.optim.Adam(getattr(model, part).parameters(), lr=0.01, betas=(0.5, 0.9)) for part in "dg"}
    return Trainer(model, optimizers, step=gan_step, progress=False, **more)


def test_a_gan_with_two_optimizers():
    data = pb.random.normal((256, 1), mean=3.0, std=0.5, rng=pb.random.Generator(4))
    t = gan_trainer()
    loader = DataLoader([data[i] for i in range(256)], 64, shuffle=True)
    history = t.fit(loader, steps=400)
    with pb.no_grad():
        made = t.model.g(pb.random.normal((1000, 2), rng=pb.random.Generator(5)))
    assert abs(float(pb.mean(made)) - 3.0) <= 0.4
    assert set(history.steps[0]) == {"step", "epoch", "d", "g"} and all(p.grad is None for p in t.model.parameters())
    assert set(t.evaluate([data[:8]])) == {"d", "g"}


def test_two_optimizers_get_only_their_own_gradients():
    batch = pb.random.normal((8, 1), rng=pb.random.Generator(4))
    t, by_hand = gan_trainer(), gan_trainer()
    t.fit([batch], steps=1)
    pb.manual_seed(0)
    model = by_hand.model

    def update(loss, part):
        parameters = list(getattr(model, part).parameters())
        for p, g in zip(parameters, pb.gradients(loss, parameters), strict=True):
            p.grad = g

    ctx = SimpleNamespace(backward=update, update=lambda part: by_hand.update(part))
    gan_step(model, batch, ctx)
    same(weights(t.model), weights(model))


def test_two_optimizers_accumulate():
    whole, parts = gan_trainer(), gan_trainer(accumulate=2)
    batch = pb.random.normal((8, 1), rng=pb.random.Generator(4))
    counted = []
    parts.optimizers["d"].step = lambda **_: counted.append("d")
    parts.optimizers["g"].step = lambda **_: counted.append("g")
    parts.fit([batch[:6], batch[6:], batch], steps=2)
    assert counted == ["d", "g", "d", "g"] and parts.step == 2
    assert len(whole.fit([batch], steps=1).steps) == 1


class TwoPasses(pb.optim.SGD):
    """A rule of two gradients: the second one at the point the first one leads to."""

    needs_closure = True

    def step(self, closure=None, **options):
        closure()
        return super().step(closure, **options)


def test_a_closure_optimizer_sees_the_whole_window():
    data = problem(10)
    model, plain = net(), net()
    history = trainer(model, optimizer=TwoPasses(model.parameters(), lr=0.1), accumulate=2).fit(
        [data[:6], data[6:]], steps=1
    )
    trainer(plain).fit([data[:]], steps=1)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, weights(plain)[name], atol=2e-7)
    assert len(history.steps) == 1 and set(history.steps[0]) == {"step", "epoch", "loss"}


# ---- validation, metrics, averages, schedules


def test_validation_and_metrics_are_means_over_items():
    model = net()
    data, held_out = problem(), problem(10, seed=7)

    def share(prediction, target):
        return pb.mean((pb.argmax(prediction, axis=1) == target).astype(pb.float32))

    t = trainer(model, metrics={"accuracy": "accuracy", "mine": share})
    history = t.fit(DataLoader(data, 8), DataLoader(held_out, 4), epochs=2)
    x, y = held_out[:]
    expected = t.evaluate([(x, y)])
    assert history["valid_loss"][-1] == pytest.approx(expected["loss"], rel=1e-6)
    assert history["valid_accuracy"][-1] == pytest.approx(expected["accuracy"], rel=1e-6)
    prediction = np.asarray(model(x).tolist())
    assert expected["accuracy"] == pytest.approx(np.mean(prediction.argmax(1) == np.asarray(y.tolist())))
    assert history["accuracy"] == history["mine"] and model.training
    assert t.history.steps[0]["accuracy"] in [i / 8 for i in range(9)] and trainer(net(), metrics=["accuracy"]).metrics


def test_evaluation_is_in_eval_mode_without_gradients():
    seen = []

    class Probe(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(pb.ones(1))

        def forward(self, x):
            y = x * self.w
            seen.append((self.training, y.requires_grad))
            return y

    t = trainer(Probe(), loss=pb.losses.mse)
    batch = (pb.ones((2, 1)), pb.zeros((2, 1)))
    t.fit([batch], [batch], steps=1)
    assert seen == [(True, True), (False, False)] and t.model.training
    t.model.eval()
    t.evaluate([batch])
    assert not t.model.training


def test_ema_is_what_is_validated():
    model = net()
    x, y = problem()[:]
    t = trainer(model, ema=0.5)
    history = t.fit([(x, y)], [(x, y)], epochs=3)
    replay, points = net(), []
    points.append(weights(replay))
    average = weights(replay)
    for _ in range(3):
        trainer(replay).fit([(x, y)], steps=1)
        average = {k: 0.5 * average[k] + 0.5 * v for k, v in weights(replay).items()}
    with t.averaged():
        for name, w in weights(model).items():
            np.testing.assert_allclose(w, average[name], atol=1e-6)
        inside = t.model(x)
    same(weights(model), weights(replay))
    assert history["valid_loss"][-1] == pytest.approx(cross_entropy(inside, y).item(), rel=1e-6)
    assert history["valid_loss"][-1] != pytest.approx(cross_entropy(model(x), y).item(), rel=1e-6)
    own = pb.optim.EMA(model, 0.9)
    assert trainer(model, ema=own).ema is own


def test_a_function_as_schedule():
    model = net()
    t = trainer(model, schedule=lambda step: 0.1 / (step + 1), callbacks=[LRMonitor()])
    history = t.fit([problem()[:]], steps=3)
    assert [r["lr"] for r in history.steps] == [0.1, 0.05, 0.1 / 3]


def test_a_schedule_object_steps_after_each_step():
    model = net()
    optimizer = sgd(model)
    t = trainer(
        model,
        optimizer=optimizer,
        schedule=pb.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5),
        callbacks=[LRMonitor()],
    )
    history = t.fit([problem()[:]], steps=5)
    assert [r["lr"] for r in history.steps] == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_a_schedule_that_takes_a_metric_steps_after_each_epoch():
    model = net()
    optimizer = sgd(model, lr=0.0)  # nothing improves
    optimizer.param_groups[0]["lr"] = 1e-9
    t = trainer(
        model,
        optimizer=optimizer,
        schedule=pb.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, eps=0.0),
        callbacks=[LRMonitor()],
    )
    rates = [r["lr"] for r in t.fit([problem()[:]] * 2, epochs=3).steps]
    assert rates[0] == rates[3] == 1e-9 and rates[4] == pytest.approx(1e-10)


def test_schedules_by_optimizer():
    t = gan_trainer(schedule={"d": lambda step: 0.5, "g": lambda step: 0.25}, callbacks=[LRMonitor()])
    record = t.fit([pb.ones((4, 1))], steps=1).steps[0]
    assert (record["lr_d"], record["lr_g"]) == (0.5, 0.25)
