"""The network is right, its gradients are right, and bad input is refused."""

import ast
import inspect
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

EXACT = {"sigmoid": special.expit, "tanh": np.tanh,
         "relu": lambda Z: Z.clip(0)}
precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def finite_arrays(**limits):
    """Return a strategy of 2-D arrays, float32 or float64, all finite."""
    return st.sampled_from(["f4", "f8"]).flatmap(lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=dict(allow_nan=False, allow_infinity=False) | limits))


@settings(deadline=None, max_examples=200)
@given(finite_arrays())
@example(np.linspace([-40], [40], 20_001))
@example(np.linspace([-40], [40], 20_001, dtype=np.float32))
def test_activation_of_any_finite_input_is_exact(nb, activation, Z):
    before, eps = Z.copy(), np.finfo(Z.dtype).eps
    with np.errstate(all="raise", under="ignore"):
        A = getattr(nb, activation)(Z)
        slope = nb.ACTIVATIONS[activation][1](A)
    assert A.dtype == Z.dtype and (Z == before).all()
    assert np.allclose(A, EXACT[activation](Z.astype(np.float64)),
                       rtol=4 * eps, atol=4 * eps)
    assert np.abs(A).max() <= (np.inf if activation == "relu" else 1)
    assert slope.min() >= 0 and slope.max() <= 1


@settings(deadline=None, max_examples=200)
@given(finite_arrays(min_value=-10_000, max_value=10_000))
def test_softmax_of_any_logits_is_exact(nb, logits):
    probs, log_probs = nb.softmax(logits)
    exact = special.log_softmax(logits.astype(np.float64), axis=1)
    assert np.allclose(log_probs, exact, rtol=1e-12, atol=1e-12)
    assert np.allclose(probs, np.exp(exact), rtol=0, atol=1e-12)
    assert np.allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-12)


@precisions
@pytest.mark.parametrize("target, loss", [(0, 0), (1, 2000), (2, 1000)])
def test_loss_of_saturated_logits(nb, dtype, target, loss):
    logits = np.array([[1000, -1000, 0]], dtype)
    Y = np.eye(3, dtype=dtype)[[target]]
    with np.errstate(all="raise", under="ignore"):
        value, dlogits = nb.cross_entropy(logits, Y)
    assert value == loss
    assert dlogits.tolist() == (np.array([[1, 0, 0]]) - Y).tolist()
    assert dlogits.dtype == dtype


@pytest.mark.parametrize("sizes", [(784, 500, 250, 100, 10), (300, 200)])
def test_glorot(nb, sizes):
    model = nb.MLP(sizes, "relu", 0)
    for W, b, *shape in zip(model.weights, model.biases, sizes, sizes[1:]):
        M = math.sqrt(6 / sum(shape))
        assert W.shape == (*shape,) and b.shape == (shape[1],)
        assert W.dtype == b.dtype == np.float32 and not b.any()
        assert stats.kstest(W.ravel(), stats.uniform(-M, 2 * M).cdf
                            ).pvalue > 1e-3
    same, other = (nb.MLP(sizes, "tanh", seed).weights for seed in (0, 1))
    for a, b, c in zip(model.weights, same, other):     # the seed alone counts
        assert (a == b).all() and (a != c).mean() > 0.9


def test_untrained_network(nb, mnist, activation):
    model = nb.MLP(nb.SIZES, activation, 0)
    loss, _ = nb.evaluate(model, mnist.X_test, mnist.y_test)
    assert abs(loss - math.log(10)) < 0.35
    probs = model.predict_proba(mnist.X_test[:1001])    # two chunks
    assert probs.shape == (1001, 10) and probs.dtype == np.float32
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-6)
    one = model.predict_proba(mnist.X_test[1000:1001])
    assert np.allclose(one, probs[1000:], atol=1e-6)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("sizes", [(5, 4, 3, 3), (6, 5, 4, 3, 10), (4, 2)])
def test_every_gradient_against_differences(nb, rng, activation, sizes,
                                            batch_size):
    model = nb.MLP(sizes, activation, 3, np.float64)
    for b in model.biases:
        b[:] = rng.normal(0, 0.3, b.shape)
    X = rng.normal(size=(batch_size, sizes[0]))
    Y = np.eye(sizes[-1])[rng.integers(sizes[-1], size=batch_size)]
    _, dWs, dbs = model.loss_and_gradients(X, Y)
    h = 1e-6
    for parameter, gradient in zip(model.weights + model.biases, dWs + dbs):
        assert gradient.shape == parameter.shape
        for index in np.ndindex(parameter.shape):
            value = parameter[index]
            losses = []
            for parameter[index] in (value + h, value - h):
                losses.append(model.loss_and_gradients(X, Y)[0])
            parameter[index] = value
            numeric = (losses[0] - losses[1]) / (2 * h)
            assert abs(gradient[index] - numeric) < 1e-8


# ----------------------------------------------------------- handout's rule

# Matrix product, elementwise arithmetic, comparison, exp, sum and max over
# an axis; np.log for the value of the loss; and what only makes arrays.
ALLOWED = {"np.matmul", "np.add", "np.subtract", "np.multiply", "np.divide",
           "np.negative", "np.abs", "np.where", "np.maximum", "np.exp",
           "np.log", "np.empty_like", "np.zeros_like", "np.float32",
           "np.float64", "len", "zip", "range", "reversed", "enumerate",
           "float", "softmax", "function", "derivative"}
ALLOWED_OF_ARRAYS = {"sum", "max", "astype", "append", "copy", "T", "dtype"}


@pytest.mark.parametrize("name", ["forward", "backward", "sigmoid", "tanh",
                                  "relu", "softmax", "cross_entropy"])
def test_passes_use_only_what_the_handout_allows(nb, name):
    nodes = ast.walk(ast.parse(inspect.getsource(getattr(nb, name))))
    used = {ast.unparse(getattr(node, "func", node)) for node in nodes
            if isinstance(node, (ast.Call, ast.Attribute))}
    assert not {call for call in used - ALLOWED
                if call.startswith(("np.", "torch.", "F.", "helpers."))
                or call.rpartition(".")[2] not in ALLOWED_OF_ARRAYS}


def test_slopes_use_only_arithmetic(nb):
    assert list(nb.ACTIVATIONS) == list(EXACT)
    for name, (function, slope, _) in nb.ACTIVATIONS.items():
        assert function is getattr(nb, name)    # which was checked above
        assert slope.__code__.co_names == ()    # no global, no attribute


@pytest.mark.parametrize("name", ["model.npz", "model", "model.v1.bin"])
@precisions
def test_save_and_load(nb, tmp_path, activation, dtype, name):
    model = nb.MLP((7, 6, 5, 4), activation, 0, dtype)
    model.biases[0] += 1 / 3
    model.save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    loaded = nb.MLP.load(str(tmp_path / name))
    assert type(loaded) is nb.MLP and loaded.sizes == model.sizes
    assert loaded.activation == activation and loaded.dtype == dtype
    for a, b in zip(model.weights + model.biases,
                    loaded.weights + loaded.biases, strict=True):
        assert a.dtype == b.dtype == dtype and (a == b).all()


@pytest.mark.parametrize("write", [
    lambda file: None, lambda file: file.write(b"not a network"),
    lambda file: np.save(file, np.zeros(2)),
    lambda file: np.save(file, np.array([{}])),
    lambda file: np.savez(file, np.zeros((2, 2))),
    lambda file: [np.savez(file, np.zeros((2, 2))), file.truncate(100)]])
def test_load_of_a_file_without_a_network(nb, tmp_path, write):
    path = tmp_path / "model"
    with pytest.raises(FileNotFoundError, match="model"):
        nb.MLP.load(path)
    with path.open("wb") as file:
        write(file)
    with pytest.raises(ValueError, match="model holds no network"):
        nb.MLP.load(path)


@pytest.mark.parametrize("sizes, activation, message", [
    *[(sizes, "relu", "sizes must be") for sizes in (
        (), (784,), (784, 0, 10), (784, -5, 10), (784, 2.5, 10))],
    *[((4, 3), activation, "activation must be one of")
      for activation in ("elu", "ReLU", "", None)]])
def test_bad_network(nb, sizes, activation, message):
    with pytest.raises(ValueError, match=message):
        nb.MLP(sizes, activation, 0)


BAD_IMAGES = r"X must (have shape \(N, 4\), N > 0|hold finite numbers)"


@pytest.mark.parametrize("X, Y, message", [
    *((X, np.eye(3)[:2], BAD_IMAGES) for X in (
        np.zeros((2, 5)), np.zeros(4), np.zeros((2, 2, 2)), np.zeros((0, 4)),
        np.full((2, 4), np.nan), np.array([[0, 0, 0, np.inf]]))),
    *((np.zeros((2, 4)), Y, "Y must be one-hot") for Y in (
        np.zeros(2, int), np.eye(4)[:2], np.eye(3), np.zeros((2, 3)),
        np.ones((2, 3)), np.full((2, 3), np.nan), np.full((2, 3), 1 / 3),
        np.array([[2., -1, 0]] * 2)))])
def test_bad_images_and_targets(nb, X, Y, message):
    model = nb.MLP((4, 3), "relu", 0)
    with pytest.raises(ValueError, match=message):
        model.loss_and_gradients(X, Y)
    if message == BAD_IMAGES:
        with pytest.raises(ValueError, match=message):
            model.predict_proba(X)


@pytest.mark.parametrize("name, value", [
    *[(name, value) for name in ("num_epochs", "batch_size", "evaluate_every")
      for value in (0, -1, 2.5)],
    *[("learning_rate", value) for value in (0, -1, math.nan, math.inf)]])
def test_bad_settings_of_training(nb, data, name, value):
    with pytest.raises(ValueError, match=f"{name} must be.*{value}"):
        nb.train(nb.MLP((784, 3, 10), "relu", 0), data, **{name: value})


@pytest.mark.parametrize("part, rows", [
    ("y_train", 129), ("X_train", 0), ("y_test", 49), ("X_test", 0)])
def test_images_without_labels_and_labels_without_images(nb, data, part, rows):
    bad = data._replace(**{part: getattr(data, part)[:rows]})
    with pytest.raises(ValueError, match="must have the same number of rows"):
        nb.train(nb.MLP((784, 3, 10), "relu", 0), bad)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("settings", [
    dict(learning_rate=1e30, evaluate_every=1),
    dict(learning_rate=1e30, evaluate_every=None), dict(pixel=np.nan)])
def test_divergence_is_an_error_and_leaves_the_model_alone(nb, data, settings):
    data.X_train[3, 5] = settings.pop("pixel", 0)
    model = nb.MLP((784, 20, 20, 10), "relu", 0)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        nb.train(model, data, num_epochs=5, **settings)
    assert all(map(np.array_equal, model.weights, nb.glorot(model.sizes, 0)))
