"""What the tests share: definitions, data, and small runs of the notebook."""

import ast
import copy
import os
import random

# Arrays are small, and the notebook runs beside the tests.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1",
                  MKL_NUM_THREADS="1")

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from zipfile import ZipFile

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import definitions
import helpers

NOTEBOOK, ROOT = definitions.NOTEBOOK, definitions.ROOT

# The shortest run in which every section still has something to show.
TINY = dict(num_epochs=1, num_train=640, num_test=200, num_validation=100,
            evaluate_every=3, num_seeds=2, num_torch_seeds=2, sweep_train=256,
            sweep_epochs=1, probe_size=50, long_epochs=1, benchmark_repeats=1,
            benchmark_images=128, recognizer_epochs=1, ladder_epochs=1,
            num_photos=11, num_jobs=1)

# Google Colab's upload button, for a user who picks the zip.
COLAB_FILES = """
from pathlib import Path
def upload():
    content = Path(r"{source}").read_bytes()
    Path("{name}").write_bytes(content)
    return {{"{name}": content}}
"""


@pytest.fixture(scope="session")
def nb():
    """Return the notebook's definitions."""
    return definitions.load_definitions()


@pytest.fixture(scope="session")
def mnist():
    """Return MNIST, fetched into the project's own folder if missing."""
    return helpers.load_mnist(ROOT / "data")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def random_data(rng):
    """Return a function that makes random images with random labels."""
    def make(num_train, num_test):
        return helpers.Data(
            rng.random((num_train, 784), np.float32),
            rng.integers(10, size=num_train),
            rng.random((num_test, 784), np.float32),
            rng.integers(10, size=num_test))
    return make


@pytest.fixture
def data(random_data):
    """Return 130 random images to train on and 50 to test."""
    return random_data(130, 50)


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

    `plain` and `other_seed` run beside helpers.py; `colab` has the same
    parameters as `plain` but starts in an empty folder, with a stand-in for
    Google Colab whose user uploads the zip. `twice` runs all cells and then
    each again; it returns what `run_twice` does.
    """
    (cell,) = definitions.tagged(nbformat.read(NOTEBOOK, 4), "parameters")
    unknown = set(TINY) - {node.id for node in ast.walk(ast.parse(cell.source))
                           if isinstance(node, ast.Name)}
    assert not unknown, f"the notebook has no parameters {unknown}"
    folders = {name: tmp_path_factory.mktemp(name)
               for name in ("plain", "colab", "other_seed")}
    again = tmp_path_factory.mktemp("twice")
    for folder in (folders["plain"], folders["other_seed"], again):
        shutil.copy(ROOT / "helpers.py", folder)
    package = tmp_path_factory.mktemp("site") / "google" / "colab"
    package.mkdir(parents=True)
    archive = package / "PA1.zip"
    with ZipFile(archive, "w") as zipped:
        zipped.write(NOTEBOOK, "PA1/" + NOTEBOOK.name)
        zipped.write(ROOT / "helpers.py", "PA1/helpers.py")
    (package / "__init__.py").touch()
    (package / "files.py").write_text(
        COLAB_FILES.format(source=archive, name="PA1.zip"))
    extra = {"colab": dict(PYTHONPATH=str(package.parent.parent)),
             "other_seed": dict(seed=1)}
    processes, pool = [], ThreadPoolExecutor(max_workers=2)
    started = {"twice": pool.submit(run_twice, again)}
    started |= {name: pool.submit(papermill, processes, folder,
                                  **extra.get(name, {}))
                for name, folder in folders.items()}
    yield SimpleNamespace(**{name: run.result
                             for name, run in started.items()})
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def papermill(processes, folder, seed=0, **environment):
    """Execute a copy of the notebook in a folder; return its path."""
    shutil.copy(NOTEBOOK, folder / "in.ipynb")
    parameters = TINY | dict(seed=seed, data_root=str(ROOT / "data"))
    given = [word for name, value in parameters.items()
             for word in ("-p", name, str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb",
         "--no-progress-bar", *given], cwd=folder, text=True,
        env=os.environ | environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    processes.append(process)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-5000:]
    return folder / "out.ipynb"


def run_twice(folder):
    """Run all cells, then each once more, alone, in random order.

    Returns a list of (source, outputs, outputs of the second time).
    """
    notebook = nbformat.read(NOTEBOOK, 4)
    (cell,) = definitions.tagged(notebook, "parameters")
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in (
        TINY | dict(data_root=str(ROOT / "data"))).items())
    cells = [(index, cell) for index, cell in enumerate(notebook.cells)
             if cell.cell_type == "code"]
    client = NotebookClient(notebook, timeout=600, allow_errors=True,
                            resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for index, cell in cells:
            client.execute_cell(cell, index)
        second = {index: copy.deepcopy(cell) for index, cell in cells}
        for index, cell in random.Random(0).sample(list(second.items()),
                                                   len(second)):
            cell.outputs = []
            client.execute_cell(cell, index)
    return [(cell.source, cell.outputs, second[index].outputs)
            for index, cell in cells]
