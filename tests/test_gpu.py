"""The hand-written network on a GPU, as far as a processor can test it.

`Array` has the rules of CuPy's: NumPy's functions and ufuncs dispatch to it,
and nothing turns it into an array of NumPy's, or mixes it with one, silently.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_training import close

import helpers

reads = []                      # values read back, for which a GPU has to wait


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    def __init__(self, values):
        self.values = values

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion to a NumPy array")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        if out:
            kwargs["out"] = tuple(map(unwrap, out))
        return wrap(getattr(ufunc, method)(*map(unwrap, inputs), **kwargs))

    def __array_function__(self, function, types, args, kwargs):
        if function is np.asarray:      # by like=
            return place(*args)
        return wrap(function(*map(unwrap, args),
                             **{k: unwrap(v) for k, v in kwargs.items()}))

    def __getattr__(self, name):        # shape, astype, sum, take, T...
        if name.startswith("__"):
            raise AttributeError(name)
        attribute = getattr(self.values, name)
        if not callable(attribute):
            return wrap(attribute)
        return lambda *args, **kwargs: wrap(attribute(
            *map(unwrap, args), **kwargs))

    def __getitem__(self, key):
        return wrap(self.values[unwrap(key)])

    def __setitem__(self, key, value):
        self.values[unwrap(key)] = unwrap(value)

    def __len__(self):
        return len(self.values)

    def __float__(self):
        reads.append(self)
        return float(self.values)

    def get(self):
        reads.append(self)
        return self.values.copy()


def wrap(value):
    return Array(value) if isinstance(value, (np.ndarray, np.generic)) else (
        value)


def unwrap(value):
    """Return what an Array holds; refuse arrays of NumPy's beside it."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(unwrap, value))
    if isinstance(value, np.ndarray):
        raise TypeError("an array of NumPy's among the GPU's")
    return value.values if isinstance(value, Array) else value


def place(array, dtype=None):
    return Array(np.array(getattr(array, "values", array), dtype))


def test_the_stand_in_refuses_what_cupy_refuses():
    array = place(np.ones((2, 3)))
    for mix in (lambda: array + np.ones(3), lambda: np.ones(3) + array,
                lambda: np.asarray(array), lambda: array @ np.ones((3, 1)),
                lambda: np.concatenate([array, np.ones((2, 3))]),
                lambda: np.maximum(array, 0, out=np.ones((2, 3)))):
        with pytest.raises(TypeError):
            mix()


@pytest.mark.parametrize("trainer, settings", [
    ("train", dict(watch=9)), ("train_adam", dict(watch=9, alpha=0.1)),
    ("train_twin", dict(alpha=0.1)),
    ("train_distorted", dict(distortion=(1, 1), least=0.02, smoothing=0.1,
                             decay=0.1))])
def test_a_run_there_equals_one_here_and_comes_back_in_numpy(
        nb, mnist, activation, trainer, settings):
    own, there = (nb.train_and_measure(
        0, mnist.subset(100, 70), activation, getattr(nb, trainer),
        sizes=(784, 30, 20, 10), num_epochs=2, batch_size=32,
        learning_rate=0.01, evaluate_every=4, place=where, **settings)
        for where in (np.asarray, place))
    assert close(own.model, there.model, 1e-6)
    assert type(there.loss) is type(own.loss) and np.isclose(there.loss,
                                                             own.loss)
    for name in ("train_loss", "test_loss", "held_out_accuracy"):
        assert np.allclose(*(getattr(run.history, name)
                             for run in (own, there)), rtol=1e-6)
    for seen, expected in zip(there.history.observed, own.history.observed,
                              strict=True):
        assert np.allclose(seen["norms"], expected["norms"], rtol=1e-4)


def test_a_network_there_predicts_evaluates_and_saves(nb, mnist, tmp_path):
    own, there = (nb.MLP(nb.SIZES, "relu", 0) for _ in range(2))
    there.to(place)
    X, y = mnist.X_test[:1200], mnist.y_test[:1200]
    assert (own.predict_proba(X) == there.predict_proba(X)).all()
    assert nb.evaluate(own, X, y) == nb.evaluate(there, X, y)
    there.save(tmp_path / "there.npz")
    loaded = nb.MLP.load(tmp_path / "there.npz")
    assert all(map(np.array_equal, loaded.weights, own.weights))


@pytest.mark.parametrize("trainer", ["train", "train_adam"])
def test_no_step_waits_for_a_value(nb, mnist, trainer):
    counts = []
    for num_epochs in (1, 3):
        model = nb.MLP((784, 30, 10), "relu", 0)
        model.to(place)
        reads.clear()
        getattr(nb, trainer)(model, mnist.subset(320, 50), num_epochs, 32,
                             0.01, seed=0, evaluate_every=None)
        counts.append(len(reads))
    assert counts[0] == counts[1] <= 2


def test_a_gpu_is_used_only_after_it_was_checked(nb, monkeypatch):
    runtime = SimpleNamespace(getDeviceProperties=lambda _: {"name": b"X"})
    cupy = SimpleNamespace(asarray=place, __version__="14",
                           cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", None)
    found, name = helpers.find_device(nb.MLP, nb.sgd_step)
    assert found is np.asarray and "not installed" in name
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert helpers.find_device(nb.MLP, nb.sgd_step)[0] is cupy.asarray
    monkeypatch.setattr(cupy, "asarray", lambda array: place(1.01 * array))
    found, name = helpers.find_device(nb.MLP, nb.sgd_step)
    assert found is np.asarray and "Not equal" in name
