"""Training does what it says, step for step, on one thread and in parallel."""

import time

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import helpers

SIZES = (784, 20, 15, 12, 10)


def close(a, b, error=0):
    """Say whether two models are equal, bit for bit or up to an error."""
    return all(np.allclose(p, q, rtol=0, atol=error) for p, q in zip(
        a.weights + a.biases, b.weights + b.biases, strict=True))


def test_every_image_once_an_epoch_in_batches_of_like_size(nb):
    batches, again, other = (list(nb.minibatches(1000, 64, 2, seed))
                             for seed in (0, 0, 1))
    for epoch in (batches[:16], batches[16:]):
        assert {len(batch) for batch in epoch} == {62, 63}
        assert (np.sort(np.concatenate(epoch)) == np.arange(1000)).all()
    assert (batches[0] != batches[16]).any()
    assert (batches[0] == again[0]).all() and (batches[0] != other[0]).any()


def test_the_handouts_defaults_and_that_evaluation_changes_nothing(nb, data):
    assert nb.SIZES == (784, 500, 250, 100, 10)
    assert nb.train.__defaults__ == (15, 64, 0.01, 0, 200, None)
    alone, watched = nb.MLP(SIZES, "tanh", 0), nb.MLP(SIZES, "tanh", 0)
    history = nb.train(alone, data, evaluate_every=None)
    nb.train(watched, data, evaluate_every=1)
    assert close(alone, watched)
    assert history.iterations == history.train_loss == history.test_loss == []


@pytest.mark.parametrize("trainer, settings", [
    ("train", dict(evaluate_every=1)),
    ("train_twin", dict(evaluate_every=1, device="cpu")),
    ("train_adam", dict(alpha=0.01)),
    ("train_distorted", dict(evaluate_every=1, distortion=(1.5, 0.5)))])
def test_seed_decides_all_and_data_stay(nb, data, trainer, settings):
    before = [array.copy() for array in data]
    first, again, other = (nb.MLP(SIZES, "relu", 0) for _ in range(3))
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        getattr(nb, trainer)(model, data, 2, 64, 0.01, seed=seed, **settings)
    assert close(first, again) and not close(first, other)
    assert all((a == b).all() for a, b in zip(data, before))


@pytest.mark.parametrize("offset", [0, -0.4])     # standardized: no blanks
def test_leaving_out_blank_pixels_changes_nothing(nb, mnist, offset):
    data = mnist.subset(640, 50)
    data = data._replace(X_train=data.X_train + np.float32(offset))
    plain, model = (nb.MLP(nb.SIZES, "relu", 0, np.float64) for _ in range(2))
    for batch in nb.minibatches(640, 64, 1, 3):
        nb.sgd_step(plain, nb.like(plain, data.X_train[batch]),
                    nb.like(plain, nb.one_hot(data.y_train[batch])), 0.1)
    nb.train(model, data, 1, 64, 0.1, 3, None)
    assert close(plain, model, 1e-12)
    order = helpers.ink_order(data.X_train)
    X, widths = helpers.in_ink_order(data.X_train, order)
    assert (X == data.X_train[:, order]).all()
    for image, width in zip(X, widths):
        assert not image[width:].any() and (width == 784 or image[width - 1])
    assert (widths.max() == 784) == (offset != 0)
    rows = np.argsort(widths)
    assert np.allclose(
        nb.evaluate(model, data.X_train, data.y_train),
        nb.evaluate(nb.reordered(model, order), X[rows], data.y_train[rows],
                    widths[rows], chunk=100), rtol=1e-12)


def test_an_interrupted_training_leaves_the_network_as_it_was(nb, data):
    model, before = nb.MLP(SIZES, "relu", 0), nb.MLP(SIZES, "relu", 0)

    def interrupt(_):
        raise KeyboardInterrupt

    for trainer in (nb.train, nb.train_adam):
        with pytest.raises(KeyboardInterrupt):
            trainer(model, data, 1, 32, 0.1, evaluate_every=2,
                    observe=interrupt)
    assert all(map(np.array_equal, model.weights, before.weights))


def test_train_with_its_history_equals_train_torch(nb, data, activation):
    model = nb.MLP(SIZES, activation, 0, np.float64)
    network = nb.to_torch(model)
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    theirs = nb.train_torch(network, sgd, data, 3, 32, 4, 5)
    own = nb.train(model, data, 3, 32, 0.1, 4, 5)
    assert own.iterations == theirs.iterations == [5, 10, 15]
    assert own.part == "test" and own.seconds > 0
    # PyTorch's running sum of train losses is in single precision.
    for name, error in (("train_loss", 1e-6), ("test_loss", 1e-9),
                        ("held_out_accuracy", 1e-9)):
        assert np.allclose(getattr(own, name), getattr(theirs, name),
                           rtol=error, atol=0)
    assert close(model, nb.from_torch(network, model), 1e-10)


@pytest.mark.parametrize("scheduled, alpha, decay", [
    (False, 0.03, 0.0), (True, 0.0, 0.0), (True, 0.0, 0.5)])
def test_train_adam_is_pytorchs_adam(nb, data, scheduled, alpha, decay):
    data.X_train[:, :2] *= 0, 1e-7      # gradients that are 0, or near epsilon
    model = nb.MLP(SIZES, "relu", 0, np.float64)
    network = nb.to_torch(model)
    adam = nb.make_adam(network, 0.01, alpha) if not decay else (
        torch.optim.AdamW(nb.parameter_groups(network, decay), lr=0.01))
    for t, batch in enumerate(nb.minibatches(130, 13, 2, 0)):
        if scheduled:       # up for 2 of the 20 updates, then down to 0
            adam.param_groups[0]["lr"] = adam.param_groups[1]["lr"] = (
                0.01 * min((t + 0.5) / 2, (19.5 - t) / 18))
        nb.torch_step(network, adam, torch.tensor(
            data.X_train[batch]).double(), torch.tensor(data.y_train[batch]))
    history = nb.train_adam(model, data, 2, 13, 0.01, alpha=alpha, decay=decay,
                            schedule=nb.triangle if scheduled else None)
    assert history.seconds > 0
    assert close(model, nb.from_torch(network, model), 1e-10)


def test_train_torch_leaves_nothing_on_another_device(nb, data, monkeypatch):
    monkeypatch.setattr(helpers.Recorder, "finish", lambda self: None)
    # Tensors on the meta device have no values, but raise as on a GPU where
    # one was left on the CPU.
    network = nb.to_torch(nb.MLP(SIZES, "relu", 0), "meta")
    for optimizer in (torch.optim.SGD(network.parameters(), lr=0.1),
                      nb.make_adam(network, 0.001, 0.1)):
        nb.train_torch(network, optimizer, data, 1, 32, 0, None)
    assert all(p.device.type == "meta" for p in network.parameters())


def test_distort_is_small_and_leaves_its_input(mnist):
    def distorted(seed, strength=1):
        return helpers.distort(images, np.random.default_rng(seed), strength)

    images = mnist.X_train[:50]
    before, first = images.copy(), distorted(3)
    assert (images == before).all() and (first == distorted(3)).all()
    assert first.shape == images.shape and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 1
    moved = np.abs(first - images).mean()
    assert 0.01 < moved < np.abs(images[1:] - images[:-1]).mean()
    assert (abs(first.sum(axis=1) / images.sum(axis=1) - 1) < 0.4).all()
    assert np.allclose(distorted(3, strength=0), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strengths", [(1, 1), (0, 1), (1, 0.2)])
def test_distorted_batches(nb, data, rng, strengths):
    data.X_train[:, 500:] = 0           # blank, and so are most distortions
    orders = np.arange(784), rng.permutation(784)

    def stream(seed, order=orders[0]):
        batches = nb.minibatches(130, 16, 2, 0)
        return [(np.pad(X, ((0, 0), (0, 784 - X.shape[1]))), X, batch)
                for X, batch in helpers.distorted_batches(
                    data.X_train, batches, 18, seed, strengths, order)]

    first = stream(0)
    for (X, cut, batch), (again, *_), (other, *_), expected in zip(
            first, stream(0), stream(0, orders[1]),
            nb.minibatches(130, 16, 2, 0), strict=True):
        assert (batch == expected).all() and (X == again).all()
        assert np.allclose(other, X[:, orders[1]], rtol=0, atol=1e-5)
        assert cut[:, -1].any() and cut.dtype == np.float32
    assert first[0][1].shape[1] < 700
    assert (first[-1][0] != stream(1)[-1][0]).any()
    change = np.abs(first[0][0] - data.X_train[first[0][2]]).mean()
    assert (change > 1e-3) == (strengths[0] > 0)


def test_hard_images_are_those_not_read_with_certainty(nb, mnist):
    data = mnist.subset(500, 1)
    model = nb.MLP((784, 30, 10), "relu", 0)
    nb.train_adam(model, data, 9, 32, 0.003)
    X, Y = data.X_train[:, :700], nb.one_hot(data.y_train)  # cut
    whole = np.pad(X, ((0, 0), (0, 84)))
    off = abs(model.predict_proba(whole) - Y).max(axis=1)
    for least in (0.05, 0.5):
        hard, targets = nb.hard_images(model, X, Y, least)
        assert 0 < len(hard) < len(X)
        assert (hard == X[off >= least]).all()
        assert (targets == Y[off >= least]).all()
    hardest, _ = nb.hard_images(model, X, Y, least=1.1)     # none is
    assert (hardest == X[off.argmax()]).all() and len(hardest) == 1


def test_smoothing_moves_targets_towards_a_tenth(nb, mnist, monkeypatch):
    model = nb.MLP((784, 9, 10), "relu", 0)
    monkeypatch.setattr(nb, "train_adam", lambda _, d, *__, batches, **___: [
        *batches(d, np.arange(784), model, 32, 1, 0)])
    sharp, soft = (nb.train_distorted(
        model, mnist.subset(32, 1), 1, 32, 0.01, 0, None, (1, 1),
        smoothing=smoothing)[0][1] for smoothing in (0.0, 0.1))
    assert sharp.max() == 1 and np.allclose(soft, 0.9 * sharp + 0.01)


def test_distorted_batches_raise_what_fails_in_their_thread(data):
    batches = iter([np.array([0, 1]), np.array([500])])
    with pytest.raises(IndexError):
        list(helpers.distorted_batches(data.X_train, batches, 2, 0, (1, 1),
                                       np.arange(784)))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_run_parallel_keeps_order_on_single_threads(capsys, n_jobs):
    def job(number):
        time.sleep(0.3 * (number == 3))         # the first ends last
        pools = {pool["num_threads"] for pool in threadpool_info()
                 if pool["user_api"] == "blas"}
        return number, pools, torch.get_num_threads()

    jobs, before = [dict(number=i) for i in (3, 1)], torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2):
        done = helpers.run_parallel(job, jobs, "Jobs", n_jobs)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert done == [(3, {1}, 1), (1, {1}, 1)] and after == 2
    assert "Jobs: 1 of 2" in capsys.readouterr().out
