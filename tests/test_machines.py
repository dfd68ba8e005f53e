"""What differs from machine to machine is met, or named in words."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest

import definitions
import helpers

# ------------------------------------------------------------ parameters


@pytest.fixture
def parameters():
    """Return the notebook's parameters, by name."""
    (cell,) = definitions.tagged(nbformat.read(definitions.NOTEBOOK, 4),
                                 "parameters")
    exec(cell.source, {}, given := {})
    return given


@pytest.mark.parametrize("change", [
    {}, dict(quick=True, num_epochs=1, sweep_epochs=1, num_photos=100),
    dict(best="relu", seeds=[0], photo_count=10, few_photos=5, epoch=2.5),
    dict(num_train=640, num_validation=100, evaluate_every=9, batch_size=64,
         num_epochs=1), dict(num_jobs=3)])
def test_parameters_of_a_run(parameters, change):
    helpers.check_parameters(**parameters | change)


@pytest.mark.parametrize("change, words", [
    (dict(evaluate_every=200, sweep_train=1000, num_epochs=1),
     "evaluate_every must be at most 16,"),
    (dict(num_seeds=0), "num_seeds must be .* 1: 0"),
    (dict(num_epochs=1.5), "num_epochs must be a whole number"),
    (dict(num_photos=True), "num_photos must be a whole number"),
    (dict(num_train=60_001), "num_train: MNIST has 60,000"),
    (dict(num_test=10_001), "num_test: MNIST has 10,000"),
    (dict(num_validation=60_000), "num_validation must be smaller"),
    (dict(batch_size=15_001), "batch_size must be at most a fifth"),
    (dict(quick="true"), "quick must be True or False"),
    (dict(learning_rate=0), "learning_rate must be"),
    (dict(learning_rate="high"), "learning_rate must be"),
    (dict(learning_rate=float("nan")), "learning_rate must be"),
    (dict(seed=-1), "seed must be"), (dict(num_jobs=0), "num_jobs must be"),
    (dict(digit_path="seven.jpg"), "no file 'seven.jpg'"),
    (dict(data_root=__file__), "data_root must be a folder"),
    (dict(num_epoch=1), "no num_epoch: did you mean num_epochs"),
    (dict(quik=True), "no quik: did you mean quick"),
    (dict(num_seeds=0, num_epochs=0), "(?s)num_epochs must.*num_seeds must")])
def test_parameters_that_make_no_run(parameters, change, words):
    with pytest.raises(ValueError, match=words):
        helpers.check_parameters(**parameters | change)


# ------------------------------------------------------- libraries and data


@pytest.mark.parametrize("wrong", [
    lambda A, B: (A @ B).astype(np.float16),
    lambda A, B: A @ B * (np.nan if np.shares_memory(A, B) else 1)])
def test_wrong_products_are_named(wrong):
    helpers.check_products()
    with pytest.raises(ArithmeticError, match="multiplies matrices wrongly"):
        helpers.check_products(wrong)


def test_pixels_that_were_not_divided(nb, data):
    model = nb.MLP((784, 3, 10), "sigmoid", 0)
    raw = data._replace(X_train=np.rint(255 * data.X_train))
    for use in (lambda: nb.train(model, raw),
                lambda: model.predict_proba(raw.X_train)):
        with pytest.raises(ValueError, match="pixels up to 255: divide by"):
            use()
    model.predict_proba(1000 * data.X_test)     # large, but no bytes


def test_an_interrupted_save_keeps_what_was_there(nb, tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half of it")
        raise KeyboardInterrupt

    model, path = nb.MLP((4, 3), "relu", 0), tmp_path / "a.npz"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(helpers.np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save(path)
    assert path.read_bytes() == before


# ------------------------------------------------------------ parallel runs


def test_a_killed_worker_is_named():
    with pytest.raises(MemoryError, match="killed, most likely.* num_jobs"):
        helpers.run_parallel(lambda: os.kill(os.getpid(), signal.SIGTERM),
                             [{}] * 2, "Dying", 2)


@pytest.mark.parametrize("cores, gigabytes, n_jobs, expected", [
    (8, 3.5, -1, 3), (8, 0.5, -1, 1), (2, 3.5, -1, -1), (8, 3.5, 6, 6)])
def test_scarce_memory_means_fewer_workers(monkeypatch, cores, gigabytes,
                                           n_jobs, expected):
    memory = SimpleNamespace(available=gigabytes * 1e9)
    monkeypatch.setattr(helpers.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(helpers.joblib, "cpu_count", lambda: cores)
    assert helpers._affordable.__wrapped__(n_jobs) == expected


@pytest.mark.parametrize("kernel, lines", [
    (None, 11), (SimpleNamespace(_allow_stdin=False), 11),
    (SimpleNamespace(_allow_stdin=True), 100)])
def test_ten_lines_of_progress_where_nobody_looks_on(monkeypatch, capsys,
                                                     kernel, lines):
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr(helpers.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(helpers, "get_ipython",
                        lambda: kernel and SimpleNamespace(kernel=kernel))
    assert list(helpers._progress(range(100), 100, "Work")) == [*range(100)]
    assert capsys.readouterr().out.count("Work: ") == lines


INTERRUPTED = """
import signal, sys, time
sys.path.insert(0, {root!r})
# A shell starts background jobs with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import helpers
images = helpers._as_memory_map(np.ones(1_000_000))
helpers.run_parallel(lambda images, seconds: time.sleep(seconds),
    [dict(images=images, seconds=s) for s in (0.1, 60, 60)], "Übung ±α", 2)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends the signal of Ctrl-C")
def test_an_interrupt_leaves_no_process_and_no_file(tmp_path):
    folder = tmp_path / "Jürgens Übung 1"
    folder.mkdir()
    (folder / "run.py").write_text(INTERRUPTED.format(
        root=str(definitions.ROOT)), "utf-8")
    run = subprocess.Popen(
        [sys.executable, "run.py"], cwd=folder, start_new_session=True,
        env=os.environ | dict(TMPDIR=str(folder),
                              PYTHONIOENCODING="cp1252:replace"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"1 of 3" in run.stdout.readline()
    assert len(session(run.pid)) > 2
    run.send_signal(signal.SIGINT)
    error = run.communicate(timeout=60)[1]
    assert b"KeyboardInterrupt" in error
    # joblib's own tracker may find a file gone already, and say so.
    assert not [line for line in error.splitlines()
                if b"Warning" in line and b"resource_tracker" not in line]
    deadline = time.monotonic() + 60    # other tests use the cores, too
    while session(run.pid) or os.listdir(folder) != ["run.py"]:
        assert time.monotonic() < deadline, (session(run.pid),
                                             os.listdir(folder))
        time.sleep(0.1)


def session(pid):
    """Return the processes that a process started, itself included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):  # ended
            if (process.status() != psutil.STATUS_ZOMBIE
                    and os.getsid(process.pid) == pid):
                found.append(process)
    return found
