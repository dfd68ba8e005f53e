"""The network is right, its gradients are right, and bad input is refused."""

import ast
import inspect
import math
import textwrap
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

ACTIVATIONS = ["sigmoid", "tanh", "relu"]
EXACT = {"sigmoid": special.expit, "tanh": np.tanh,
         "relu": lambda Z: (Z + np.abs(Z)) / 2}
BOUNDS = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, math.inf)}


def finite_arrays(max_value=None):
    """Return a strategy of 2-D arrays, float32 or float64, all finite."""
    def arrays(width):
        limit = max_value and float(max_value)
        elements = st.floats(None if limit is None else -limit, limit,
                             allow_nan=False, allow_infinity=False,
                             width=width)
        shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=5)
        return hnp.arrays(f"f{width // 8}", shapes, elements=elements)
    return st.sampled_from([32, 64]).flatmap(arrays)


def one_hot_targets(rng, n, num_classes, dtype=np.float64):
    return np.eye(num_classes, dtype=dtype)[rng.integers(num_classes, size=n)]


def small_model(nb, rng, activation, sizes):
    """Return a model in double precision whose biases aren't zero."""
    model = nb.MLP(sizes, activation, 3, np.float64)
    for b in model.biases:
        b[:] = rng.normal(0, 0.3, b.shape)
    return model


# -------------------------------------------------------------- activations


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(deadline=None, max_examples=200)
@given(Z=finite_arrays())
def test_activation_of_any_finite_input(nb, activation, Z):
    before = Z.copy()
    with warnings.catch_warnings(), np.errstate(over="raise",
                                                invalid="raise",
                                                divide="raise"):
        warnings.simplefilter("error")
        A = getattr(nb, activation)(Z)
        slope = nb.ACTIVATIONS[activation][1](A)
    low, high = BOUNDS[activation]
    assert A.shape == Z.shape and A.dtype == Z.dtype
    assert np.isfinite(A).all() and (A >= low).all() and (A <= high).all()
    assert (slope >= 0).all() and (slope <= 1).all()
    assert (Z == before).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_agrees_with_known_function(nb, activation, dtype):
    Z = np.concatenate([np.linspace(-40, 40, 20_001), [-1e30, 0, 1e30],
                        np.logspace(-30, 0, 50)]).astype(dtype)
    difference = getattr(nb, activation)(Z) - EXACT[activation](
        Z.astype(np.float64))
    assert np.abs(difference / np.maximum(np.abs(Z), 1)).max() < 4 * np.finfo(
        dtype).eps


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slope_agrees_with_differences(nb, activation):
    Z, h = np.linspace(-5, 5, 1000), 1e-6       # without 0, ReLU's kink
    function, slope = nb.ACTIVATIONS[activation]
    numeric = (function(Z + h) - function(Z - h)) / (2 * h)
    assert np.abs(slope(function(Z)) - numeric).max() < 1e-9


# --------------------------------------------------------- softmax and loss


@settings(deadline=None, max_examples=200)
@given(logits=finite_arrays(1e4), shift=st.floats(-1000, 1000))
def test_softmax(nb, logits, shift):
    probs, log_probs = nb.softmax(logits)
    assert (probs >= 0).all() and (probs <= 1).all()
    assert np.allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.isfinite(log_probs).all()
    assert np.allclose(log_probs, special.log_softmax(
        logits.astype(np.float64), axis=1), rtol=1e-12, atol=1e-12)
    shifted, _ = nb.softmax(logits.astype(np.float64) + shift)
    assert np.allclose(shifted, probs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target, loss", [(0, 0), (1, 2000), (2, 1000)])
def test_loss_of_saturated_logits(nb, dtype, target, loss):
    logits = np.array([[1000, -1000, 0]], dtype)
    Y = np.eye(3, dtype=dtype)[[target]]
    with np.errstate(all="raise", under="ignore"):
        value, dlogits = nb.cross_entropy(logits, Y)
    assert value == loss
    assert dlogits.tolist() == (np.array([[1, 0, 0]]) - Y).tolist()
    assert dlogits.dtype == dtype


def test_loss_is_the_mean_over_images(nb, rng):
    logits, Y = rng.normal(size=(7, 4)), one_hot_targets(rng, 7, 4)
    loss, dlogits = nb.cross_entropy(logits, Y)
    single = [nb.cross_entropy(logits[i:i + 1], Y[i:i + 1])
              for i in range(7)]
    assert math.isclose(loss, np.mean([value for value, _ in single]))
    assert np.allclose(dlogits, np.vstack([d for _, d in single]) / 7)
    assert math.isclose(nb.cross_entropy(np.zeros((3, 10)), np.eye(10)[:3])[0],
                        math.log(10))


# ----------------------------------------------------------- initialization


@pytest.mark.parametrize("sizes", [(784, 500, 250, 100, 10), (300, 200)])
def test_glorot(nb, sizes):
    model = nb.MLP(sizes, "relu", 0)
    assert len(model.weights) == len(model.biases) == len(sizes) - 1
    for W, b, fan_in, fan_out in zip(model.weights, model.biases, sizes,
                                     sizes[1:]):
        M = math.sqrt(6 / (fan_in + fan_out))
        assert W.shape == (fan_in, fan_out) and b.shape == (fan_out,)
        assert W.dtype == b.dtype == np.float32
        assert 0.99 * M < W.max() <= M * (1 + 1e-6)
        assert -0.99 * M > W.min() >= -M * (1 + 1e-6)
        assert abs(W.mean()) < 5 * M / math.sqrt(3 * W.size)
        assert math.isclose(W.var(), M ** 2 / 3, rel_tol=0.1)
        assert (b == 0).all()


def test_seed_decides_the_weights(nb):
    first, same, other = (nb.MLP((20, 10, 5), "relu", seed)
                          for seed in (0, 0, 1))
    for a, b, c in zip(first.weights, same.weights, other.weights):
        assert (a == b).all() and (a != c).mean() > 0.9
    tanh = nb.MLP((20, 10, 5), "tanh", 0)
    assert (tanh.weights[0] == first.weights[0]).all()


def test_initial_loss_is_near_ln_10(nb, mnist):
    for activation in ACTIVATIONS:
        model = nb.MLP(nb.SIZES, activation, 0)
        loss, _, _ = model.loss_and_gradients(
            mnist.X_train[:500], nb.one_hot(mnist.y_train[:500]))
        assert abs(loss - math.log(10)) < 0.35


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("sizes", [(5, 4, 3, 3), (6, 5, 4, 3, 10), (4, 2)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_gradient_against_differences(nb, rng, activation, sizes,
                                            batch_size):
    model = small_model(nb, rng, activation, sizes)
    X = rng.normal(size=(batch_size, sizes[0]))
    Y = one_hot_targets(rng, batch_size, sizes[-1])
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


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_real_network_against_autograd(nb, mnist, activation, batch_size):
    model = nb.MLP(nb.SIZES, activation, 0, np.float64)
    X = mnist.X_train[:batch_size].astype(np.float64)
    y = mnist.y_train[:batch_size]
    loss, dWs, dbs = model.loss_and_gradients(X, nb.one_hot(y))
    leaves = [torch.tensor(p, requires_grad=True)
              for p in model.weights + model.biases]
    A, function = torch.tensor(X), getattr(torch, activation)
    for layer in range(3):
        A = function(A @ leaves[layer] + leaves[4 + layer])
    expected = F.cross_entropy(A @ leaves[3] + leaves[7], torch.tensor(y))
    expected.backward()
    assert math.isclose(loss, expected.item(), rel_tol=1e-12)
    for own, leaf in zip(dWs + dbs, leaves):
        scale = np.abs(own).max()
        assert np.abs(own - leaf.grad.numpy()).max() < 1e-10 * scale


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_into_given_arrays(nb, rng, activation):
    model = small_model(nb, rng, activation, (5, 4, 3, 3))
    X, Y = rng.normal(size=(6, 5)), one_hot_targets(rng, 6, 3)
    layers, logits = nb.forward(X, model.weights, model.biases, activation)
    _, dlogits = nb.cross_entropy(logits, Y)
    fresh = nb.backward(layers, dlogits, model.weights, activation)
    given = [np.full_like(W, np.nan) for W in model.weights]
    dWs, dbs = nb.backward(layers, dlogits, model.weights, activation, given)
    assert all(dW is array for dW, array in zip(dWs, given))
    for a, b in zip(dWs + dbs, fresh[0] + fresh[1]):
        assert (a == b).all()


def test_gradients_are_new_arrays_and_inputs_stay(nb, rng):
    model = small_model(nb, rng, "tanh", (5, 4, 3, 3))
    X, Y = rng.normal(size=(6, 5)), one_hot_targets(rng, 6, 3)
    held = [X, Y, *model.weights, *model.biases]
    copies = [array.copy() for array in held]
    _, dWs, dbs = model.loss_and_gradients(X, Y)
    first = [array.copy() for array in dWs + dbs]
    _, other_dWs, other_dbs = model.loss_and_gradients(2 * X, Y)
    for i, array in enumerate(dWs + dbs):
        assert (array == first[i]).all()
        for other in [*held, *other_dWs, *other_dbs]:
            assert not np.shares_memory(array, other)
    assert all((a == b).all() for a, b in zip(held, copies))


# ----------------------------------------------------------- handout's rule

# Matrix product, elementwise arithmetic, comparison, exp, sum and max over
# an axis; np.log for the value of the loss; and what only makes arrays.
ALLOWED_NUMPY = {"matmul", "add", "subtract", "multiply", "divide", "negative",
                 "abs", "where", "maximum", "exp", "log", "empty_like",
                 "zeros_like", "float32", "float64"}
ALLOWED_METHODS = {"sum", "max", "astype", "append", "copy"}
ALLOWED_NAMES = {"len", "zip", "range", "reversed", "enumerate", "float",
                 "softmax", "function", "derivative"}


@pytest.mark.parametrize("name", ["forward", "backward", "sigmoid", "tanh",
                                  "relu", "softmax", "cross_entropy"])
def test_passes_use_only_what_the_handout_allows(nb, name):
    assert foreign_calls(inspect.getsource(getattr(nb, name))) == set()


def test_slopes_use_only_arithmetic(nb):
    for activation in ACTIVATIONS:
        code = nb.ACTIVATIONS[activation][1].__code__
        assert code.co_names == ()      # no global, no attribute


def test_check_of_the_handouts_rule_can_fail():
    source = "def f(Z):\n    return np.tanh(Z) + torch.relu(Z) + Z.dot(Z)"
    assert foreign_calls(source) == {"np.tanh", "torch.relu", "Z.dot"}


def foreign_calls(source):
    """Return the calls, as text, that the allow-lists don't name."""
    foreign = set()
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.Attribute) and ast.unparse(
                node.value) in ("np", "torch", "F", "helpers"):
            allowed = (ast.unparse(node.value) == "np"
                       and node.attr in ALLOWED_NUMPY)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            allowed, node = node.func.id in ALLOWED_NAMES, node.func
        elif isinstance(node, ast.Call) and isinstance(
                node.func, ast.Attribute) and ast.unparse(
                node.func.value) != "np":
            allowed, node = node.func.attr in ALLOWED_METHODS, node.func
        else:
            continue
        if not allowed:
            foreign.add(ast.unparse(node))
    return foreign


# ------------------------------------------------------- predict, save, load


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_predict_proba(nb, mnist, activation):
    model = nb.MLP(nb.SIZES, activation, 0)
    probs = model.predict_proba(mnist.X_test[:100])
    assert probs.shape == (100, 10) and probs.dtype == np.float32
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-6)
    one = model.predict_proba(mnist.X_test[:1])
    assert np.allclose(one, probs[:1], atol=1e-6)


@pytest.mark.parametrize("name", ["model.npz", "model", "model.v1.bin"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_save_and_load(nb, rng, tmp_path, activation, dtype, name):
    model = nb.MLP((7, 6, 5, 4), activation, 0, dtype)
    model.biases[0][:] = rng.normal(size=6)
    path = tmp_path / name
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    loaded = nb.MLP.load(str(path))
    assert loaded.activation == activation and loaded.sizes == model.sizes
    for a, b in zip(model.weights + model.biases,
                    loaded.weights + loaded.biases, strict=True):
        assert a.dtype == b.dtype == dtype and (a == b).all()
    X = rng.random((3, 7))
    assert (model.predict_proba(X) == loaded.predict_proba(X)).all()
    assert zipfile.is_zipfile(path)
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[key].dtype != object for key in arrays)


def bad_files(path):
    """Write files that hold no network; return them by name."""
    files = {kind: path / kind for kind in ("text", "empty", "array", "npz",
                                            "cut short", "pickle")}
    files["text"].write_text("not a network")
    files["empty"].touch()
    with open(files["array"], "wb") as file:
        np.save(file, np.zeros(3))
    with open(files["npz"], "wb") as file:
        np.savez(file, W0=np.zeros((2, 2)))
    files["cut short"].write_bytes(files["npz"].read_bytes()[:100])
    np.save(files["pickle"].open("wb"), np.array([{}]), allow_pickle=True)
    return files


@pytest.mark.parametrize("kind", ["text", "empty", "array", "npz",
                                  "cut short", "pickle"])
def test_load_of_a_file_without_a_network(nb, tmp_path, kind):
    path = bad_files(tmp_path)[kind]
    with pytest.raises(ValueError):
        nb.MLP.load(path)


def test_load_of_a_missing_file(nb, tmp_path):
    with pytest.raises(FileNotFoundError):
        nb.MLP.load(tmp_path / "nothing.npz")


# ------------------------------------------------------------ bad arguments


@pytest.mark.parametrize("sizes", [(), (784,), (784, 0, 10), (784, -5, 10),
                                   (784, 2.5, 10)])
def test_bad_sizes(nb, sizes):
    with pytest.raises(ValueError, match="sizes must be"):
        nb.MLP(sizes, "relu", 0)


@pytest.mark.parametrize("activation", ["elu", "ReLU", "", None])
def test_bad_activation(nb, activation):
    with pytest.raises(ValueError, match="activation must be one of"):
        nb.MLP((4, 3), activation, 0)


@pytest.mark.parametrize("X, message", [
    (np.zeros((2, 5)), r"X must have shape \(N, 4\)"),
    (np.zeros(4), r"X must have shape \(N, 4\)"),
    (np.zeros((2, 2, 2)), r"X must have shape \(N, 4\)"),
    (np.zeros((0, 4)), "N > 0"),
    (np.full((2, 4), np.nan), "finite"),
    (np.array([[0, 0, 0, np.inf]]), "finite")])
def test_bad_images(nb, X, message):
    model = nb.MLP((4, 3), "relu", 0)
    with pytest.raises(ValueError, match=message):
        model.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        model.loss_and_gradients(X, np.eye(3)[np.zeros(len(X), int)])


@pytest.mark.parametrize("Y", [
    np.zeros(2, int), np.eye(4)[:2], np.eye(3), np.zeros((2, 3)),
    np.ones((2, 3)), np.full((2, 3), np.nan), np.array([[2., -1, 0]] * 2),
    np.full((2, 3), 1 / 3)])
def test_targets_that_are_not_one_hot(nb, Y):
    model = nb.MLP((4, 3), "relu", 0)
    with pytest.raises(ValueError, match="Y must be one-hot"):
        model.loss_and_gradients(np.zeros((2, 4)), Y)


def test_one_hot_targets_of_any_type(nb, rng):
    model = nb.MLP((4, 3), "relu", 0)
    X, y = rng.random((2, 4)), [0, 2]
    losses = {model.loss_and_gradients(X, np.eye(3, dtype=dtype)[y])[0]
              for dtype in (int, bool, np.uint8, np.float32, np.float64)}
    assert len(losses) == 1


BAD_SETTINGS = [
    *[("num_epochs", value) for value in (0, -1, 1.5)],
    *[("batch_size", value) for value in (0, -1, 2.5)],
    *[("evaluate_every", value) for value in (0, -1, 0.5)],
    *[("learning_rate", value) for value in (0, -1, math.nan, math.inf)]]


@pytest.mark.parametrize("name, value", BAD_SETTINGS)
def test_bad_settings_of_training(nb, data, name, value):
    model = nb.MLP((784, 3, 10), "relu", 0)
    before = model.weights[0].copy()
    with pytest.raises(ValueError, match=f"{name} must be.*{value}"):
        nb.train(model, data, **{name: value})
    assert (model.weights[0] == before).all()


@pytest.mark.parametrize("change, message", [
    (lambda d: d._replace(y_train=d.y_train[:-1]), "X_train and y_train"),
    (lambda d: d._replace(y_test=d.y_test[:-1]), "X_test and y_test"),
    (lambda d: d._replace(X_train=d.X_train[:0], y_train=d.y_train[:0]),
     "X_train and y_train"),
    (lambda d: d._replace(X_test=d.X_test[:0], y_test=d.y_test[:0]),
     "X_test and y_test"),
    (lambda d: d._replace(y_train=d.y_train + 5), "labels must be")])
def test_bad_data_of_training(nb, data, change, message):
    with pytest.raises(ValueError, match=message):
        nb.train(nb.MLP((784, 3, 10), "relu", 0), change(data))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("evaluate_every", [1, None])
def test_divergence_is_an_error(nb, data, evaluate_every):
    model = nb.MLP((784, 20, 20, 10), "relu", 0)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        nb.train(model, data, num_epochs=5, learning_rate=1e30,
                 evaluate_every=evaluate_every)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_images_with_nan_are_not_trained_on(nb, data):
    data.X_train[3, 5] = np.nan
    with pytest.raises((ValueError, FloatingPointError), match="finite"):
        nb.train(nb.MLP((784, 20, 10), "relu", 0), data, num_epochs=1)
