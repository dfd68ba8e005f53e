"""What the tests share: definitions, data, and small runs of the notebook."""

import multiprocessing
import os

# Arrays are small, and the notebook runs beside the tests.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1",
                  MKL_NUM_THREADS="1")

import random
import shutil
from types import SimpleNamespace

import nbformat
import numpy as np
import papermill
import pytest
from nbclient import NotebookClient

import definitions
import helpers

NOTEBOOK, ROOT = definitions.NOTEBOOK, definitions.ROOT

# The shortest run in which every section still has something to show.
TINY = dict(num_epochs=1, num_train=640, num_test=200, num_validation=100,
            evaluate_every=3, num_seeds=2, num_sweep_seeds=2, sweep_train=256,
            sweep_epochs=1, probe_size=50, benchmark_repeats=1,
            benchmark_images=128, recognizer_epochs=1, num_recognizers=1,
            ladder_epochs=1, num_photos=11, num_jobs=1,
            data_root=str(ROOT / "data"))

# Google Colab's upload button, for a user who picks helpers.py.
COLAB_FILES = f"""import shutil
def upload():
    return [shutil.copy({str(ROOT / "helpers.py")!r}, ".")]
"""


@pytest.fixture(scope="session")
def nb():
    """Return the notebook's definitions."""
    return definitions.load_definitions()


@pytest.fixture(scope="session")
def mnist():
    """Return MNIST, fetched into the project's own folder if missing."""
    return helpers.load_mnist(ROOT / "data")


@pytest.fixture(scope="module", params=["sigmoid", "tanh", "relu"])
def activation(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    """Return random images, 130 to train on and 1,100 to test: two chunks."""
    return helpers.Data(
        rng.random((130, 784), np.float32), rng.integers(10, size=130),
        rng.random((1100, 784), np.float32), rng.integers(10, size=1100))


def pytest_collection_modifyitems(items):
    """Put the tests that wait for the notebook's runs at the end."""
    items.sort(key=lambda item: "runs" in item.fixturenames)


@pytest.fixture(scope="session", autouse=True)
def start_runs(request):
    """Start the runs before the first test, if any test needs them."""
    if any("runs" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("runs")


@pytest.fixture(scope="session")
def runs(mnist, tmp_path_factory):
    """Return functions that wait for a small run each and return its path.

    `plain` and `other_seed` run beside helpers.py; `plain` does all its cells
    once more, into again.ipynb. `colab` starts in a folder that has only a
    stand-in for Google Colab.
    """
    assert TINY.keys() <= papermill.inspect_notebook(NOTEBOOK).keys()
    folders = {name: tmp_path_factory.mktemp(name)
               for name in ("plain", "colab", "other_seed")}
    for name in ("plain", "other_seed"):
        shutil.copy(ROOT / "helpers.py", folders[name])
    package = folders["colab"] / "google" / "colab"
    package.mkdir(parents=True)
    (package / "files.py").write_text(COLAB_FILES)
    options = {"plain": dict(again=True), "other_seed": dict(seed=1)}
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield SimpleNamespace(**{
            name: pool.apply_async(run, [folder], options.get(name, {})).get
            for name, folder in folders.items()})


def run(folder, again=False, **parameters):
    """Run the notebook at small scale; with `again`, each cell once more.

    The second time cells are run alone, in random order.
    """
    notebook = nbformat.read(NOTEBOOK, 4)
    (cell,) = definitions.tagged(notebook, "parameters")
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in (
        TINY | parameters).items())
    cells = [(cell, index) for index, cell in enumerate(notebook.cells)
             if cell.cell_type == "code"]
    client = NotebookClient(notebook, timeout=600,
                            resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for cell, index in cells:
            client.execute_cell(cell, index)
        nbformat.write(notebook, folder / "run.ipynb")
        client.reset_execution_trackers()   # displays, for one
        for cell, index in random.Random(0).sample(cells, again * len(cells)):
            client.execute_cell(cell, index)
        nbformat.write(notebook, folder / "again.ipynb")
    return folder / "run.ipynb"
