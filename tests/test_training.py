"""Training does what it says, step for step, alone and in parallel."""

import math
import os

import joblib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special
from threadpoolctl import threadpool_info, threadpool_limits

import helpers

ACTIVATIONS = ["sigmoid", "tanh", "relu"]
SIZES = (784, 20, 15, 12, 10)


def in_double(data):
    return data._replace(X_train=data.X_train.astype(np.float64),
                         X_test=data.X_test.astype(np.float64))


def parameters(model):
    return model.weights + model.biases


def same(a, b):
    """Say whether two models are equal, bit for bit."""
    return all((p == q).all() for p, q in zip(parameters(a), parameters(b),
                                              strict=True))


# -------------------------------------------------------------- minibatches


def test_every_image_once_an_epoch_and_the_last_batch_partial(nb):
    batches = list(nb.minibatches(60_000, 64, 2, 0))
    assert len(batches) == 2 * 938
    for epoch in (batches[:938], batches[938:]):
        assert [len(batch) for batch in epoch] == [64] * 937 + [32]
        assert (np.sort(np.concatenate(epoch)) == np.arange(60_000)).all()
    assert (batches[0] != batches[938]).any()


def test_seed_decides_the_order(nb):
    first, again, other = (np.concatenate(list(nb.minibatches(100, 8, 1, s)))
                           for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_last_partial_batch_counts_by_its_own_size(nb, random_data):
    data = in_double(random_data(70, 5))
    model = nb.MLP(SIZES, "tanh", 0, np.float64)
    by_hand = nb.MLP(SIZES, "tanh", 0, np.float64)
    nb.train(model, data, num_epochs=1, batch_size=64, learning_rate=0.5,
             seed=3)
    sizes = []
    for batch in nb.minibatches(70, 64, 1, 3):
        sums = [np.zeros_like(p) for p in parameters(by_hand)]
        for i in batch:         # one image at a time, then the mean
            _, dWs, dbs = by_hand.loss_and_gradients(
                data.X_train[i:i + 1], nb.one_hot(data.y_train[i:i + 1]))
            for total, gradient in zip(sums, dWs + dbs):
                total += gradient
        for parameter, total in zip(parameters(by_hand), sums):
            parameter -= 0.5 * total / len(batch)
        sizes.append(len(batch))
    assert sizes == [64, 6]
    for a, b in zip(parameters(model), parameters(by_hand)):
        assert np.allclose(a, b, rtol=0, atol=1e-13)


# ------------------------------------------------------------------ history


def test_history_against_an_independent_loop(nb, random_data):
    data = in_double(random_data(130, 1500))
    settings = dict(num_epochs=2, batch_size=32, learning_rate=0.1, seed=5)
    model = nb.MLP(SIZES, "relu", 0, np.float64)
    watched = []
    history = nb.train(
        model, data, evaluate_every=3, **settings,
        observe=lambda m: watched.append(m.weights[0][0, 0]) or len(watched))
    twin, losses, points = nb.MLP(SIZES, "relu", 0, np.float64), [], []
    for t, batch in enumerate(nb.minibatches(130, 32, 2, 5), start=1):
        loss, dWs, dbs = twin.loss_and_gradients(
            data.X_train[batch], nb.one_hot(data.y_train[batch]))
        for parameter, gradient in zip(parameters(twin), dWs + dbs):
            parameter -= 0.1 * gradient
        losses.append(loss)
        if t % 3 == 0:
            A = data.X_test
            for W, b in zip(twin.weights[:-1], twin.biases[:-1]):
                A = np.maximum(A @ W + b, 0)
            logits = A @ twin.weights[-1] + twin.biases[-1]
            chosen = special.log_softmax(logits, axis=1)[
                np.arange(1500), data.y_test]
            points.append((t, np.mean(losses[t - 3:t]), -chosen.mean(),
                           (logits.argmax(axis=1) == data.y_test).mean(),
                           twin.weights[0][0, 0]))
    iterations, train_loss, test_loss, accuracy, seen = zip(*points)
    assert t == 10 and history.iterations == list(iterations) == [3, 6, 9]
    assert np.allclose(history.train_loss, train_loss, rtol=1e-10, atol=0)
    assert np.allclose(history.test_loss, test_loss, rtol=1e-10, atol=0)
    assert np.allclose(history.test_accuracy, accuracy, rtol=1e-12, atol=0)
    assert np.allclose(watched, seen, rtol=1e-10, atol=0)
    assert history.observed == [1, 2, 3] and history.seconds > 0
    assert all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in
               zip(parameters(model), parameters(twin)))


def test_without_evaluation_the_same_training(nb, data):
    watched, alone = nb.MLP(SIZES, "tanh", 0), nb.MLP(SIZES, "tanh", 0)
    nb.train(watched, data, num_epochs=2, evaluate_every=1)
    history = nb.train(alone, data, num_epochs=2, evaluate_every=None)
    assert same(watched, alone)
    assert history.iterations == history.train_loss == history.test_loss == []


def test_the_handouts_settings_are_the_defaults(nb, data):
    default, explicit = nb.MLP(SIZES, "tanh", 0), nb.MLP(SIZES, "tanh", 0)
    nb.train(default, data)
    nb.train(explicit, data, 15, 64, 0.01, 0, 200)
    assert same(default, explicit)
    assert nb.SIZES == (784, 500, 250, 100, 10)


def test_training_leaves_the_data_alone(nb, data):
    before = [array.copy() for array in data]
    nb.train(nb.MLP(SIZES, "relu", 0), data, num_epochs=1, evaluate_every=1)
    nb.train_adam(nb.MLP(SIZES, "relu", 0), data, 1, **nb.RECIPE)
    assert all((a == b).all() for a, b in zip(data, before))


def test_training_learns_real_digits(nb, mnist):
    model = nb.MLP(nb.SIZES, "relu", 0)
    nb.train(model, mnist.subset(4000, 1000), num_epochs=4,
             learning_rate=0.1, evaluate_every=None)
    assert nb.evaluate(model, mnist.X_test, mnist.y_test)[1] > 0.8


# ------------------------------------------------------- parity with PyTorch


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_whole_trajectory_agrees_with_pytorch(nb, random_data, activation):
    data = in_double(random_data(630, 5))
    model = nb.MLP(SIZES, activation, 0, np.float64)
    network = nb.to_torch(model)
    sgd = torch.optim.SGD(network.parameters(), lr=0.2)
    iterations = 0
    for batch in nb.minibatches(630, 64, 6, 0):
        X, y = data.X_train[batch], data.y_train[batch]
        logits = network(torch.tensor(X))
        loss = F.cross_entropy(logits, torch.tensor(y))
        sgd.zero_grad()
        loss.backward()
        _, own_logits = nb.forward(X, model.weights, model.biases, activation)
        own_loss, dWs, dbs = model.loss_and_gradients(X, nb.one_hot(y))
        assert np.allclose(own_logits, logits.detach(), rtol=0, atol=1e-10)
        assert math.isclose(own_loss, loss.item(), rel_tol=1e-10)
        for dW, db, linear in zip(dWs, dbs, network[::2]):
            assert np.allclose(dW.T, linear.weight.grad, rtol=0, atol=1e-11)
            assert np.allclose(db, linear.bias.grad, rtol=0, atol=1e-11)
        assert own_loss == nb.sgd_step(model, X, nb.one_hot(y), 0.2)
        sgd.step()
        for W, b, linear in zip(model.weights, model.biases, network[::2]):
            assert np.allclose(W.T, linear.weight.detach(), rtol=0, atol=1e-9)
            assert np.allclose(b, linear.bias.detach(), rtol=0, atol=1e-9)
        iterations += 1
    assert iterations == 60


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_to_torch_and_back(nb, rng, activation, dtype):
    model = nb.MLP(SIZES, activation, 0, dtype)
    for b in model.biases:
        b[:] = rng.normal(size=b.shape)
    network = nb.to_torch(model)
    back = nb.from_torch(network, model)
    assert same(model, back) and back.activation == activation
    X = rng.random((5, 784)).astype(dtype)
    probs = network(torch.tensor(X)).softmax(dim=1).detach()
    assert np.allclose(model.predict_proba(X), probs, rtol=0, atol=1e-6)
    with torch.no_grad():
        network[0].weight.zero_()
    assert model.weights[0].any() and back.weights[0].any()     # copies


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_train_torch_with_sgd_equals_train(nb, data, activation):
    data = in_double(data)
    settings = dict(num_epochs=3, batch_size=32, seed=4, evaluate_every=5)
    model = nb.MLP(SIZES, activation, 0, np.float64)
    network = nb.to_torch(model)
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    theirs = nb.train_torch(network, sgd, data, **settings)
    own = nb.train(model, data, learning_rate=0.1, **settings)
    assert own.iterations == theirs.iterations == [5, 10, 15]
    # PyTorch's running sum of train losses is in single precision.
    for name, error in (("train_loss", 1e-6), ("test_loss", 1e-9),
                        ("test_accuracy", 1e-9)):
        assert np.allclose(getattr(own, name), getattr(theirs, name),
                           rtol=error, atol=0)
    for a, b in zip(parameters(model),
                    parameters(nb.from_torch(network, model))):
        assert np.allclose(a, b, rtol=0, atol=1e-10)


def test_penalty_in_the_loss_is_weight_decay_of_weights_only(nb, data):
    data, alpha, rate = in_double(data), 0.03, 0.1
    model = nb.MLP(SIZES, "tanh", 0, np.float64)
    model.biases[0] += 0.5          # which must not decay
    network, decayed = nb.to_torch(model), nb.to_torch(model)
    sgd = torch.optim.SGD(network.parameters(), lr=rate)
    decay = torch.optim.SGD(nb.parameter_groups(decayed, alpha), lr=rate)
    for batch in nb.minibatches(130, 32, 3, 0):
        X, y = (torch.tensor(a[batch]) for a in (data.X_train, data.y_train))
        squares = sum((W ** 2).sum()
                      for W in nb.from_torch(network, model).weights)
        loss = nb.torch_step(network, sgd, X, y, alpha).item()
        plain = nb.torch_step(decayed, decay, X, y).item()
        assert math.isclose(loss, plain + alpha / 2 * squares, rel_tol=1e-12)
        for a, b in zip(network.parameters(), decayed.parameters()):
            assert torch.allclose(a, b, rtol=0, atol=1e-13)


def test_history_of_train_torch_includes_the_penalty(nb, data):
    data, alpha = in_double(data), 0.03
    model = nb.MLP(SIZES, "relu", 0, np.float64)
    network = nb.to_torch(model)
    histories = [nb.train_torch(
        network, torch.optim.SGD(network.parameters(), lr=1e-9), data,
        num_epochs=1, batch_size=32, seed=0, evaluate_every=5, alpha=a)
        for a in (0.0, alpha)]
    trained = nb.from_torch(network, model)
    plain, _ = nb.evaluate(trained, data.X_test, data.y_test)
    extra = alpha / 2 * sum((W ** 2).sum() for W in trained.weights)
    without, history = histories
    assert history.iterations == [5]
    assert math.isclose(history.observed[-1], extra, rel_tol=1e-12)
    assert math.isclose(history.test_loss[-1], plain + extra, rel_tol=1e-12)
    assert math.isclose(history.train_loss[-1],
                        without.train_loss[-1] + extra, rel_tol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.03])
def test_run_adam_minimizes_the_loss_with_its_penalty(nb, data, alpha):
    settings = dict(num_epochs=1, batch_size=65, evaluate_every=2)
    run = nb.run_adam(data, "relu", 3, 0.01, alpha=alpha, keep_model=True,
                      **settings)
    network = nb.to_torch(nb.MLP(nb.SIZES, "relu", 3))
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    for batch in nb.minibatches(130, 65, 1, 3):
        nb.torch_step(network, adam, torch.tensor(data.X_train[batch]),
                      torch.tensor(data.y_train[batch]), alpha)
    expected = nb.from_torch(network, run.model)
    for a, b in zip(parameters(run.model), parameters(expected)):
        assert np.allclose(a, b, rtol=0, atol=1e-5)
    squares = sum((W ** 2).sum() for W in run.model.weights)
    assert math.isclose(run.penalty, alpha / 2 * squares, rel_tol=1e-5)
    plain, _ = nb.evaluate(run.model, data.X_test, data.y_test)
    assert math.isclose(run.test_loss, plain + run.penalty, rel_tol=1e-6)
    assert math.isclose(run.test_loss, run.history.test_loss[-1],
                        rel_tol=1e-5)


def test_adam_by_hand_step_for_step(nb, rng):
    shapes = [(7, 5), (5,), (3, 2)]
    own = [rng.normal(size=shape) for shape in shapes]
    twins = [torch.tensor(p, requires_grad=True) for p in own]
    adam, theirs = nb.Adam(own), torch.optim.Adam(twins, lr=0.01)
    for _ in range(300):
        scale = 10.0 ** rng.integers(-9, 4)     # from near epsilon to large
        gradients = [scale * rng.normal(size=shape) for shape in shapes]
        gradients[2][:] = 0
        for twin, gradient in zip(twins, gradients):
            twin.grad = torch.tensor(gradient)
        theirs.step()
        adam.step(gradients, 0.01)
        for parameter, twin in zip(own, twins):
            assert np.allclose(parameter, twin.detach(), rtol=0, atol=1e-12)
    assert adam.t == 300


# On the meta device tensors have no values, but a tensor that was left on
# another device raises as it would on a GPU.


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_train_torch_leaves_nothing_on_another_device(nb, data, alpha):
    network = nb.to_torch(nb.MLP(SIZES, "relu", 0), "meta")
    for optimizer in (torch.optim.SGD(network.parameters(), lr=0.1),
                      nb.make_adam(network, 0.001)):
        history = nb.train_torch(network, optimizer, data, num_epochs=1,
                                 batch_size=32, seed=0, evaluate_every=None,
                                 alpha=alpha)
        assert history.iterations == []
    assert all(p.device.type == "meta" for p in network.parameters())


@pytest.mark.parametrize("left", ["X", "y"])
def test_meta_device_notices_what_was_left(nb, data, left):
    network = nb.to_torch(nb.MLP(SIZES, "relu", 0), "meta")
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    batch = {"X": torch.tensor(data.X_train[:8], device="meta"),
             "y": torch.tensor(data.y_train[:8], device="meta")}
    nb.torch_step(network, sgd, **batch)
    batch[left] = torch.tensor({"X": data.X_train, "y": data.y_train}[left][
        :8])
    with pytest.raises((RuntimeError, NotImplementedError)):
        nb.torch_step(network, sgd, **batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_processor(nb, data):
    found = [nb.run_adam(data, "relu", 0, 0.001, device, num_epochs=2,
                         batch_size=32, evaluate_every=2)
             for device in ("cpu", "cuda")]
    assert np.allclose(*[run.history.test_loss for run in found], rtol=1e-3)


# ------------------------------------------------------------ reproducibility


@pytest.mark.parametrize("function", ["train", "train_adam", "run_adam"])
def test_same_seed_same_result_bit_for_bit(nb, data, function):
    def result(seed):
        model = nb.MLP(SIZES, "relu", seed)
        if function == "train":
            nb.train(model, data, num_epochs=2, seed=seed)
        elif function == "train_adam":
            nb.train_adam(model, data, 2, seed=seed, **nb.RECIPE)
        else:
            model = nb.run_adam(data, "relu", seed, 0.001, num_epochs=1,
                                batch_size=64, evaluate_every=None,
                                keep_model=True).model
        return model

    assert same(result(0), result(0))
    assert not same(result(0), result(1))


def test_seed_of_training_is_the_order_of_images(nb, data):
    first, other = nb.MLP(SIZES, "relu", 0), nb.MLP(SIZES, "relu", 0)
    nb.train(first, data, num_epochs=1, seed=0)
    nb.train(other, data, num_epochs=1, seed=1)
    assert not same(first, other)


# --------------------------------------------------------------- distortions


def test_distort_is_small_and_leaves_its_input(mnist):
    images = mnist.X_train[:50]
    before = images.copy()
    first, again = (helpers.distort(images, np.random.default_rng(3))
                    for _ in range(2))
    assert (images == before).all()
    assert first.shape == images.shape and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 1
    assert (first == again).all()
    moved = np.abs(first - images).mean()
    assert 0.01 < moved < np.abs(images[1:] - images[:-1]).mean()
    ink = first.sum(axis=1) / images.sum(axis=1)
    assert (abs(ink - 1) < 0.4).all()


def test_distortion_of_strength_0_changes_nothing(mnist, rng):
    images = mnist.X_train[:20]
    same_images = helpers.distort(images, rng, strength=0)
    assert np.allclose(same_images, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strengths", [None, (1, 1), (0, 1), (1, 0.2)])
def test_distorted_batches(nb, data, strengths):
    def stream(seed):
        batches = nb.minibatches(130, 16, 2, 0)
        return list(helpers.distorted_batches(data.X_train, batches, 18, seed,
                                              strengths))

    first, batches = stream(0), list(nb.minibatches(130, 16, 2, 0))
    assert len(first) == 18
    change = []
    for (X, batch), expected in zip(first, batches, strict=True):
        assert (batch == expected).all()
        assert X.shape == (len(batch), 784) and X.dtype == np.float32
        assert X.min() >= 0 and X.max() <= 1
        change.append(np.abs(X - data.X_train[batch]).mean())
    for (X, _), (again, _) in zip(first, stream(0)):
        assert (X == again).all()
    if strengths is None:
        assert max(change) == 0
    else:
        assert (first[-1][0] != stream(1)[-1][0]).any()
        assert (change[0] > 1e-3) == (strengths[0] > 0) and change[-1] > 1e-3


def test_distorted_batches_raise_what_fails_in_their_thread(data):
    batches = iter([np.array([0, 1]), np.array([500])])
    with pytest.raises(IndexError):
        list(helpers.distorted_batches(data.X_train, batches, 2, 0))


# ------------------------------------------------------------ parallel runs


def test_run_parallel_keeps_order_on_single_threads(capsys):
    def job(number):
        import time
        time.sleep(0.3 * (number == 3))         # the first ends last
        pools = {pool["num_threads"] for pool in threadpool_info()
                 if pool["user_api"] == "blas"}
        return number, pools, torch.get_num_threads()

    jobs = [dict(number=i) for i in (3, 1, 2, 0)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            for n_jobs in (1, 2):
                done = helpers.run_parallel(job, jobs, "Jobs", n_jobs)
                assert done == [(i, {1}, 1) for i in (3, 1, 2, 0)]
        assert torch.get_num_threads() == 2     # restored
    finally:
        torch.set_num_threads(before)
    assert "Jobs: 1 of 4" in capsys.readouterr().out


def test_single_thread_flushes_subnormal_numbers_and_stops_after():
    small = np.full(8, 1e-30, np.float32)
    with helpers.single_thread():
        inside = small * np.float32(1e-9)
    after = small * np.float32(1e-9)
    supported = torch.set_flush_denormal(False)
    assert (inside == 0).all() == supported and (after > 0).all()


def test_run_parallel_raises_what_a_job_raises():
    def job():
        raise ZeroDivisionError("in a job")

    with pytest.raises(ZeroDivisionError, match="in a job"):
        helpers.run_parallel(job, [{}, {}], "Jobs", 1)


def test_a_dask_cluster_gives_the_same_results(nb, data):
    from distributed import Client, LocalCluster

    arguments = [dict(data=data, activation=activation, seed=0,
                      sizes=SIZES, num_epochs=2, batch_size=32,
                      learning_rate=0.1, evaluate_every=3, keep_model=True)
                 for activation in ACTIVATIONS]
    here = helpers.run_parallel(nb.run_numpy, arguments, "Here", 1)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True,
                      dashboard_address=None) as cluster, Client(cluster):
        with joblib.parallel_config(backend="dask"):
            there = helpers.run_parallel(nb.run_numpy, arguments, "Dask")
            where = helpers.run_parallel(os.getpid, [{}] * 4, "Where")
    assert os.getpid() not in where
    for a, b in zip(here, there, strict=True):
        assert same(a.model, b.model)
        assert a.history.test_loss == b.history.test_loss
        assert a.test_accuracy == b.test_accuracy
