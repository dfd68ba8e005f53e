"""Experiments are declared by name, trained once, and looked up ever after."""

import functools
import math
import os
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch

import definitions
import helpers

TINY = dict(sizes=(784, 20, 15, 10), num_epochs=2, batch_size=32,
            learning_rate=0.01, evaluate_every=5)


class Counted(helpers.Results):
    """A register that notes its runs; accuracy is 10 times rate plus seed."""

    def __init__(self):
        super().__init__(self.train, n_jobs=1)
        self.calls, self.faults = [], {}    # errors that seeds will raise

    def train(self, seed, data, num_epochs, rate=1, prepare=None):
        self.calls.append((num_epochs, seed))
        if seed in self.faults:
            raise self.faults.pop(seed)
        part, _, y = helpers.held_out(data)
        return helpers.Run(SimpleNamespace(), helpers.History(part), 0, 0,
                           rate, 10 * rate + seed, np.eye(10)[y], y)


@pytest.fixture
def results():
    return Counted()


@pytest.fixture
def once(data):
    """Return settings of one run."""
    return dict(data=data, num_epochs=1, seeds=[0])


def test_one_run_a_seed_and_means_over_seeds(results, once):
    for seeds, trained in (([4, 2], 2), ([4, 2], 2), ([2, 7, 4], 3), ([7], 3)):
        results.run({"a": once | dict(rate=3, seeds=seeds)})
        runs = results["a"]
        assert len(results.calls) == trained
        assert [run.accuracy - 30 for run in runs.each] == seeds
        assert runs.first is runs.each[0] and len(runs) == len(seeds)
        assert isinstance(runs.accuracy, helpers.Mean) and runs.loss == 3
        assert math.isclose(runs.accuracy, 30 + np.mean(seeds))
    assert results.calls == [(1, 4), (1, 2), (1, 7)]


@pytest.mark.parametrize("change", [
    dict(num_epochs=2), dict(rate=2), dict(prepare=abs),
    dict(prepare=lambda data: data[::-1])], ids=str)
def test_a_name_stands_for_its_settings(results, once, change):
    settings, (name,) = once | dict(prepare=lambda data: data), change
    for old, new in ((settings, settings | change),
                     (settings | change, settings)):
        results.forget()
        results.run({"a": old})
        trained = len(results.calls)
        with pytest.raises(ValueError, match=rf"another {name}.*forget\('a'"):
            results.run({"b": old, "a": new})
        assert len(results.calls) == trained    # not even b
        assert results["a"].settings == old


def test_what_is_made_again_equal_is_no_other_setting(results, once):
    def cell(change=0):
        copy = once["data"]._replace(X_train=once["data"].X_train + change)
        return {"a": once | dict(data=copy, prepare=lambda data: data)}

    results.run(cell())
    results.run(cell())
    assert len(results.calls) == 1
    with pytest.raises(ValueError, match="another data:"):
        results.run(cell(change=1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_longest_first_and_what_is_finished_survives(results, once, error):
    few = once | dict(data=once["data"].subset(9, 9), num_epochs=5)
    cell = {"few": few, "done": once | dict(num_epochs=3),
            "begun": once | dict(num_epochs=2, seeds=[0, 1])}
    results.faults[1] = error
    with pytest.raises(error):
        results.run(cell)
    assert results.calls == [(3, 0), (2, 0), (2, 1)]
    assert results["done"].accuracy == 10
    for name in ("begun", "few"):
        with pytest.raises(KeyError, match=f"'{name}' was interrupted"):
            results[name]
    with pytest.raises(ValueError, match="another rate"):
        results.run({"begun": cell["begun"] | dict(rate=2)})
    cell["few"] = few | dict(rate=2)     # free to change, never done
    results.run(cell)
    assert results.calls[3:] == [(2, 1), (5, 0)]
    assert results["begun"].accuracy == 10.5 and results["few"].loss == 2


def test_only_validation_accuracy_chooses(results, once):
    held_out = once | dict(data=once["data"].validation_split(30))
    results.run({"low": held_out | dict(seeds=[9]), "test": once,
                 "high": held_out | dict(rate=2, seeds=[0, 1])})
    assert results.best({"low": 0.1, "high": 0.2}) == 0.2
    assert results.best({"low": 0.1, "high": 0.2}, "loss") == 0.1
    with pytest.raises(ValueError, match="'test' was evaluated on the test"):
        results.best({"low": 0.1, "test": 0.3})


def test_unknown_and_forgotten_names(results, once):
    results.run({"a": once, "b": once})
    results.forget("a")
    with pytest.raises(KeyError, match=r"no experiment 'a'.*\['b'\]"):
        results["a"]
    results.run({"a": once | dict(rate=5)})
    assert len(results.calls) == 3 and results["a"].loss == 5


def test_the_register_outlives_its_cell(monkeypatch, results, once):
    monkeypatch.setattr(helpers, "_REGISTER", helpers.Results())
    first = helpers.register(results.train, 1)
    first.run({"a": once})
    again = helpers.register(functools.partial(results.train, rate=7), 1)
    again.run({"a": once, "b": once})
    assert again is first and again["a"].loss == 1 and again["b"].loss == 7
    assert helpers.fill_in("{a.loss:.0f}, {b.loss:.0f}") == "1, 7"


# --------------------------------------------------------- train_and_measure


def test_where_a_run_takes_place_changes_no_bit(data):
    from distributed import Client, LocalCluster

    nb = definitions.load_definitions()
    before = dict(vars(nb.MLP))

    def run(**settings):
        run = nb.train_and_measure(**settings)
        run.history.observed.append(os.getpid())
        return run

    def outcome(n_jobs):
        cell = {name: TINY | dict(data=data, activation=name, seeds=[0, 1])
                for name in nb.ACTIVATIONS}
        cell["adam"] = cell["relu"] | dict(trainer=nb.train_twin,
                                           device="cpu")
        results = helpers.Results(run, n_jobs, nb.MLP)
        results.run(cell)
        runs = [run for name in cell for run in results[name].each]
        places = {run.history.observed.pop() for run in runs}
        assert (os.getpid() in places) == (n_jobs == 1)
        return joblib.hash([
            (run.loss, run.train_loss, run.accuracy, run.history.train_loss,
             run.history.test_loss, run.probs, run.model.weights,
             run.model.biases) for run in runs])

    here = outcome(1)
    assert outcome(2) == here
    assert before.items() <= vars(nb.MLP).items()   # no worker's methods
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True,
                      dashboard_address=None) as cluster, Client(cluster), \
            joblib.parallel_config(backend="dask"):
        assert outcome(-1) == here


@pytest.mark.parametrize("trainer", ["train", "train_twin"])
def test_validation_images_never_count_as_test(nb, data, trainer):
    data = data.validation_split(30)
    run = nb.train_and_measure(0, data, "relu", getattr(nb, trainer), **TINY)
    assert run.history.part == "validation" and (run.y == data[3]).all()
    assert (run.loss, run.accuracy) == nb.evaluate(run.model, *data[2:])
    assert (run.train_loss, run.train_accuracy) == nb.evaluate(
        run.model, *data[:2])
    with pytest.raises(AttributeError, match="not the test set"):
        _ = run.history.test_loss


def test_every_loss_includes_the_penalty(nb, data):
    # At this rate and batch size, an epoch's mean loss is that of its end.
    still = TINY | dict(learning_rate=1e-30, batch_size=26)
    run = nb.train_and_measure(3, data, "relu", nb.train_twin,
                               alpha=0.03, **still)
    squares = sum((W ** 2).sum() for W in run.model.weights)
    assert math.isclose(run.penalty, 0.015 * squares, rel_tol=1e-5)
    for losses, part in (((run.train_loss, *run.history.train_loss), data[:2]),
                         ((run.loss, *run.history.test_loss), data[2:])):
        cross_entropy, _ = nb.evaluate(run.model, *part)
        assert np.allclose(losses, cross_entropy + run.penalty, rtol=1e-5)
    assert np.allclose(run.history.penalty, run.penalty, rtol=1e-5)


@pytest.mark.parametrize("init, factor", [
    ("Glorot", 1), ("triple", 3),
    ("He", math.sqrt(804 / 784))])      # Var w = 2 / 784, not 2 / 804
def test_initial_weights(nb, data, init, factor):
    run = nb.train_and_measure(5, data, "tanh", init=init,
                               **TINY | dict(learning_rate=1e-30))
    glorot = nb.glorot(TINY["sizes"], 5)
    assert np.allclose(run.model.weights[0], factor * glorot[0])


@pytest.mark.parametrize("offset", [0, 1])
def test_prepared_pixels(nb, data, offset):
    prepare = functools.partial(nb.scaled, offset=offset)
    split = data.validation_split(30)
    run = nb.train_and_measure(0, split, "relu", prepare=prepare, **TINY)
    twin = nb.train_and_measure(0, prepare(split), "relu", **TINY)
    assert run.loss == twin.loss and run.history.part == "validation"
    for before, after in zip(split[::2], prepare(split)[::2]):
        assert np.allclose(after * split.X_train.std() + offset, before,
                           rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate, learns", [(0.1, True), (1e30, False)])
def test_a_bold_run_that_diverges_counts_as_untrained(nb, data, rate, learns):
    run = nb.train_and_measure(0, data, "relu", nb.train_boldly, **TINY | dict(
        learning_rate=rate, evaluate_every=None))
    start = nb.MLP(TINY["sizes"], "relu", 0).weights
    assert all(map(np.array_equal, run.model.weights, start)) != learns
    assert run.history.part == "test"


def test_watched_layers(nb, data):
    run = nb.train_and_measure(0, data, "relu", watch=40, **TINY)
    assert run.history.iterations == [5, 10] and len(run.history.observed) == 3
    X, Y = data.X_train[:40], nb.one_hot(data.y_train[:40])
    (_, *hidden), _ = nb.forward(X, run.model.weights, run.model.biases,
                                 "relu")
    start, *_, seen = run.history.observed
    _, first, _ = nb.MLP(TINY["sizes"], "relu", 0).loss_and_gradients(X, Y)
    assert start["norms"] == [np.linalg.norm(dW) for dW in first]
    assert np.array_equal(np.concatenate(seen.pop("dead")), np.concatenate(
        [(A == 0).all(axis=0) for A in hidden]))
    assert seen == {
        "norms": [np.linalg.norm(dW)
                  for dW in run.model.loss_and_gradients(X, Y)[1]],
        "spread": [np.sqrt(A.var(axis=0).mean()) for A in hidden]}


@pytest.mark.parametrize("variant, low, high, slope", [
    ("centered", -0.5, 0.5, 0.25), ("doubled", -1, 1, 0.5), ("steep", 0, 1, 1),
    ("clipped", 0, 1, 1), ("hard", -1, 1, 1)])
def test_slopes_of_variants(nb, variant, low, high, slope):
    function, derivative, _ = nb.VARIANTS[variant]
    Z, h = np.linspace(-9, 9, 98), 1e-6  # beside all kinks
    numeric = (function(Z + h) - function(Z - h)) / (2 * h)
    assert np.allclose(derivative(function(Z)), numeric, atol=1e-5)
    assert np.allclose([*function(Z[[0, -1]]), numeric.max()],
                       [low, high, slope], atol=0.05)


def test_a_variant_serves_one_run(nb, data):
    before = dict(nb.ACTIVATIONS)
    changed, plain = (nb.train_and_measure(
        0, data, "sigmoid", variant=name, **TINY) for name in ("steep", None))
    assert changed.loss != plain.loss and nb.ACTIVATIONS == before


def test_runs_around_an_epoch_are_means_of_their_points(once):
    history = helpers.History(iterations=[4, 8, 12, 16],
                              held_out_loss=[9.0, 2.5, 2.5, 9.0],
                              held_out_accuracy=[50.0, 60.0, 62.0, 70.0],
                              penalty=[0.0, 0.5, 1.5, 0.0])
    run = helpers.Run(None, history, 0, 0, 2, 71, np.eye(2), np.arange(2))
    runs = helpers.Runs(once | dict(batch_size=13), [run])  # 10 an epoch
    around, nearest = runs.around(1.0), runs.around(99)
    assert (around.cross_entropy, around.accuracy) == (1.5, 61)
    assert helpers.compare(runs, around) == 10 and nearest.accuracy == 70


def test_a_curve_ends_with_the_finished_network(nb, data):
    run = nb.train_and_measure(0, data, "relu", **TINY | dict(
        evaluate_every=4))
    assert run.history.iterations == [4, 8, 10]
    assert run.history.held_out_accuracy[-1] == run.accuracy
    assert np.isclose(run.history.held_out_loss[-1], run.loss)


@pytest.mark.parametrize("slope, right", [(0.01, True), (0.02, False)])
def test_a_fourth_activation_is_one_more_line(nb, monkeypatch, data, slope,
                                              right):
    monkeypatch.setitem(nb.ACTIVATIONS, "leaky", (
        lambda Z: np.maximum(Z, 0.01 * Z),
        lambda A: np.where(A > 0, 1, slope), torch.nn.LeakyReLU))
    errors = nb.gradient_errors(
        nb.MLP(TINY["sizes"], "leaky", 0, np.float64),
        data.X_train[:4].astype(np.float64), data.y_train[:4], 0)
    assert (max(errors["autograd"]) < 1e-12) == right
    assert (max(errors["centered differences"]) < 1e-6) == right
    run = nb.train_and_measure(0, data, "leaky", watch=9, **TINY)
    assert run.history.train_loss[-1] < run.history.train_loss[0]
