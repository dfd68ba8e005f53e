"""What prepare_digit promises, and that bad input gets a clear error."""
import io
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

import helpers
from helpers import prepare_digit


def drawn_five(size=200, pen=12, ink=20, paper=235, break_bar=False):
    """Return a gray drawing of a 5 whose bar may be a separate stroke."""
    image = Image.new("L", (size, size), paper)
    draw = ImageDraw.Draw(image)

    def at(*points):
        return [(x * size, y * size) for x, y in points]

    draw.line(at((0.42, 0.2), (0.38, 0.45)), ink, pen)
    draw.arc(at((0.28, 0.42), (0.64, 0.8)), -120, 150, ink, pen)
    left = 0.48 if break_bar else 0.42
    draw.line(at((left, 0.22), (0.66, 0.2)), ink, pen)
    return image


def is_mnist_like(x):
    """Check the result's type, range, box and center; return it as 2-D."""
    assert isinstance(x, np.ndarray)
    assert x.shape == (784,) and x.dtype == np.float32
    assert np.isfinite(x).all() and x.min() >= 0 and 0.5 < x.max() <= 1
    image = x.reshape(28, 28)
    rows, columns = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
    for n in (image.sum(axis=1), image.sum(axis=0)):
        center = (n * np.arange(28)).sum() / n.sum()
        free = n[0] == n[-1] == 0       # not held back by the image's edge
        assert abs(center - 14) <= 0.55 or not free
    return image


def same_digit(a, b, least=0.9):
    """Tell whether two results agree, but for one pixel's shift, by r."""
    a, b = np.reshape(a, (28, 28)), np.ravel(b)
    return least < max(np.corrcoef(np.roll(a, (i, j), (0, 1)).ravel(), b)[0, 1]
                       for i in (-1, 0, 1) for j in (-1, 0, 1))


@pytest.fixture(scope="module")
def five():
    return prepare_digit(drawn_five())


# ---------------------------------------------------------- what comes out

def test_aspect_is_kept():
    wide = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(wide).rectangle((40, 80, 159, 119), 0)      # 120 x 40
    rows, columns = np.nonzero(prepare_digit(wide).reshape(28, 28) > 0.5)
    assert np.ptp(columns) + 1 == 20
    assert 5 <= np.ptp(rows) + 1 <= 8


@pytest.mark.parametrize("pen", [2, 4, 8, 16, 30])
def test_strokes_are_as_wide_as_in_mnist(pen):
    ink = is_mnist_like(prepare_digit(drawn_five(pen=pen))).sum()
    assert 60 < ink < 160       # 10 to 90 % of MNIST's fives: 68 to 138


def test_mnist_itself_hardly_changes(five):
    again = prepare_digit(five.reshape(28, 28))
    assert same_digit(five, again, 0.97)


# ------------------------------------------------------- formats and scales

IMAGES = {mode: lambda g, mode=mode: g.convert(mode)
          for mode in ("L", "RGBA", "LA", "CMYK", "P", "I", "F")} | {
    "1 bit": lambda g: g.convert("1", dither=Image.Dither.NONE),
    "16 bit": lambda g: Image.fromarray(np.asarray(g, np.uint16) * 257),
}
ARRAYS = {
    "uint16": lambda a: a.astype(np.uint16) * 257,
    "float 0 to 1": lambda a: a / 255,
    "float -1 to 1": lambda a: a / 127.5 - 1,
    "float16": lambda a: (a / 255).astype(np.float16),
    "bool": lambda a: a > 127,
    "list": lambda a: a.tolist(),
    "one channel": lambda a: a[:, :, None],
}


@pytest.mark.parametrize("form, kind", [
    *[(form, Image.Image.copy) for form in IMAGES.values()],
    *[(form, np.asarray) for form in ARRAYS.values()]],
    ids=[*IMAGES, *[f"array, {name}" for name in ARRAYS]])
def test_images_and_arrays(form, kind, five):
    x = prepare_digit(form(kind(drawn_five())))
    assert same_digit(is_mnist_like(x), five, 0.97)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif",
                                  "a.tif", "a.webp"])
def test_files(name, five, tmp_path):
    path = tmp_path / name
    drawn_five().save(path)
    for source in (path, str(path), path.read_bytes()):
        assert same_digit(prepare_digit(source), five)


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("hidden", [0, 255])
def test_transparent_paper(ink, hidden, five):
    shape = 255 - np.asarray(drawn_five(ink=0, paper=255))
    color = np.where(shape > 127, ink, hidden).astype(np.uint8)
    x = prepare_digit(np.dstack([color, color, color, shape]))
    assert same_digit(x, five, 0.97)


def test_transparent_palette(five):
    paletted = drawn_five().convert("P")
    paletted.info["transparency"] = paletted.getpixel((0, 0))
    paletted.putpalette([20] * 768)     # only alpha tells ink from paper
    assert same_digit(prepare_digit(paletted), five, 0.97)


@pytest.mark.parametrize("orientation, turn", [
    (3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90),
    (8, Image.Transpose.ROTATE_270), (2, Image.Transpose.FLIP_LEFT_RIGHT)])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_rotation(orientation, turn, suffix, five, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"phone.{suffix}"
    drawn_five(800, 48).transpose(turn).save(path, exif=exif)
    assert same_digit(prepare_digit(path), five)


# ------------------------------------------------- polarity, size and place

@pytest.mark.parametrize("mode, ink, paper", [
    ("L", 0, 255), ("L", 255, 0), ("L", 60, 110), ("L", 190, 150),
    ("L", 120, 250), ("L", 10, 60), ("RGB", (200, 30, 30), (250, 240, 210)),
    ("RGB", (20, 40, 160), (225, 225, 235)),
    ("RGB", (250, 250, 250), (20, 80, 50))])
def test_any_ink_on_any_paper(mode, ink, paper, five):
    photo = Image.new(mode, (200, 200), paper)
    photo.paste(ink, mask=drawn_five(ink=255, paper=0))
    assert same_digit(prepare_digit(photo), five, 0.97)


@pytest.mark.parametrize("size", [20, 28, 50, 333, 1000, 3000])
def test_any_size(size, five):
    x = prepare_digit(drawn_five(size, max(1, round(0.06 * size))))
    assert same_digit(is_mnist_like(x), five, 0.75 if size < 50 else 0.9)


@pytest.mark.parametrize("corner", [(0, 0), (0, 400), (400, 0), (220, 330)])
def test_any_place(corner, five):
    sheet = Image.new("L", (600, 600), 235)
    sheet.paste(drawn_five(), corner)
    assert same_digit(prepare_digit(sheet), five)


def test_fifty_megapixels_take_little_memory(five, tmp_path):
    path = tmp_path / "large.jpg"
    drawn_five(7070, 420).save(path)
    assert same_digit(prepare_digit(path), five)
    pixels = np.asarray(Image.open(path))
    tracemalloc.start()
    assert same_digit(prepare_digit(pixels), five)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


@pytest.mark.parametrize("shape", [(20, 200), (300, 20), (28, 5), (60, 4000)])
def test_long_images(shape):
    image = np.full(shape, 230, np.uint8)
    h, w = shape
    image[h // 4:-(h // 4), 2 * w // 5:-(2 * w // 5)] = 30
    is_mnist_like(prepare_digit(image))


def test_broken_strokes_are_kept(five):
    parted = prepare_digit(drawn_five(break_bar=True))
    assert same_digit(parted, five, 0.9)
    assert parted.reshape(28, 28)[4:9, 16:].sum() > 5       # the bar


# ------------------------------------------------ forms and several digits

@pytest.mark.parametrize("frame", [
    [(45, 0, 38, 180), (155, 0, 148, 180), (30, 180, 160, 182)],    # cut off
    [(53, 30, 53, 168), (160, 30, 160, 168), (53, 30, 160, 30),
     (53, 162, 160, 162)]])     # touches the digit
def test_a_frame_is_no_ink(frame, five):
    photo = drawn_five()
    for line in frame:
        ImageDraw.Draw(photo).line(line, 90, 3)
    assert same_digit(prepare_digit(photo), five, 0.85)


@pytest.mark.parametrize("pen, period, start, box", [
    (20, 40, 8, (0, 0, 200, 200)), (20, 64, 24, (40, 20, 150, 180)),
    (20, 52, 24, (40, 20, 150, 180)), (28, 40, 24, (50, 24, 200, 176))])
def test_squares_half_hidden_by_a_digit(pen, period, start, box):
    photo = drawn_five(pen=pen)
    for at in range(start, 200, period):
        ImageDraw.Draw(photo).line((0, at, 199, at - 4), 90, 3)
        ImageDraw.Draw(photo).line((at, 0, at + 4, 199), 90, 3)
    assert same_digit(prepare_digit(photo.crop(box)),
                      prepare_digit(drawn_five(pen=pen)))


@pytest.mark.parametrize("points", [
    [(0, 1), (60, 1), (25, 99)],                        # 7
    [(40, 0), (0, 60), (60, 60), (42, 60), (42, 99), (42, 0)],     # 4
    [(0, 0), (60, 0), (60, 99), (0, 99), (0, 0)]])      # 0
def test_straight_strokes_of_a_tight_crop_are_kept(points):
    wide = Image.new("L", (161, 200), 255)
    ImageDraw.Draw(wide).line([(x + 50, y + 50) for x, y in points], 0, 4)
    tight = wide.crop((50, 50, 111, 150))
    assert same_digit(prepare_digit(tight), prepare_digit(wide), 0.85)


@pytest.mark.parametrize("right", [17, 18])
def test_a_ring_of_one_pixel_is_no_frame(right):
    image = Image.new("L", (28, 28), 255)
    ImageDraw.Draw(image).ellipse((6, 4, right, 24), outline=0)
    ImageDraw.Draw(image).line([(12, 3), (13, 2)], 0)
    ink = prepare_digit(image).reshape(28, 28) > 0.5
    assert ink[14, :14].any() and ink[14, 14:].any() and not ink[14, 14]


@pytest.mark.parametrize("others", [1, 2])
def test_several_digits_are_refused(others):
    sheet = Image.new("L", (200 + 120 * others, 200), 235)
    for i in range(1 + others):
        sheet.paste(drawn_five().crop((50, 20, 140, 180)), (50 + 120 * i, 20))
    with pytest.raises(ValueError, match=f"{1 + others} digits.*crop"):
        prepare_digit(sheet)


# -------------------------------------------------------------- properties

dots = st.builds(
    lambda shape, seed, share: np.random.default_rng(seed).random(shape)
    < share, st.tuples(*[st.integers(20, 90)] * 2),
    st.integers(0, 2 ** 32 - 1), st.floats(0.001, 0.999))


@settings(max_examples=250, deadline=None)
@given(dots | hnp.arrays(
    st.sampled_from([np.uint8, np.float32, np.int16, bool]),
    hnp.array_shapes(min_dims=0, max_dims=4, max_side=40)))
def test_any_array_gives_a_digit_or_value_error(image):
    before = image.copy()
    try:
        x = prepare_digit(image)
    except ValueError as error:
        assert len(str(error)) > 20
    else:
        assert x.shape == (784,) and x.dtype == np.float32
        assert np.isfinite(x).all() and x.min() >= 0 and 0 < x.max() <= 1
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("installed", [False, True])
def test_heic_needs_a_package(installed, monkeypatch):
    called = []
    package = SimpleNamespace(register_heif_opener=lambda: called.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif",
                        package if installed else None)
    message = "cannot identify" if installed else "pip install pillow-heif"
    with pytest.raises(ValueError, match=message):
        prepare_digit(b"\0\0\0\x18ftypheic" + bytes(40))
    assert called == [True] * installed


# --------------------------------------------------------------- bad input

BAD = {
    "blank black": (np.zeros((50, 50)), "blank"),
    "blank gray image": (Image.new("RGB", (50, 50), (90, 90, 90)), "blank"),
    "transparent": (Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "blank"),
    "faint noise": (np.random.default_rng(3).normal(200, 2, (300, 400)),
                    "no digit"),
    "NaN": (np.full((28, 28), np.nan), "NaN"),
    "one infinity": (np.pad([[np.inf]], 20), "infinite"),
    "too small": (np.eye(10), "too few"),
    "too small image": (Image.new("L", (8, 8)), "too few"),
    "too narrow": (np.ones((1, 2000)), "narrow"),
    "empty array": (np.zeros((0, 0)), "too few"),
    "a number": (5, "shape"),
    "one axis": (np.ones(784), r"\(784,\); reshape"),
    "five channels": (np.ones((30, 30, 5)), "shape"),
    "texts": (np.full((30, 30), "x"), "array of real numbers"),
    "complex": (np.ones((30, 30), complex), "complex"),
    "None": (None, "NoneType"),
    "bytes": (b"abc", "cannot use 'this file'"),
    "absent file": ("absent.png", "absent.png"),
    "folder": (Path(__file__).parent, "tests"),
    "no name": ("", "cannot use ''"),
    "null in a name": ("a\0b", "null"),
    "too many pixels": (np.broadcast_to(np.uint8(1), (8000, 8000)),
                        "megapixels"),
}


@pytest.mark.parametrize("sort", BAD)
def test_bad_input_has_a_clear_error(sort):
    image, message = BAD[sort]
    with pytest.raises(ValueError, match=message):
        prepare_digit(image)


def bad_files():
    """Return the content of files that can't be used."""
    def saved(size, kind):
        drawn_five(size).save(buffer := io.BytesIO(), kind)
        return buffer.getvalue()

    png = saved(200, "PNG")
    return {"empty": b"", "text": b"This is a digit: 5\n",
            "truncated PNG": png[:len(png) // 2],
            "truncated JPEG": saved(1000, "JPEG")[:3000],
            "damaged PNG": png[:60] + b"?" * 40 + png[100:],
            # PGM's headers, which claim pixels that the files don't hold
            "a bomb": b"P5 60000 60000 255\n",
            "a small bomb": b"P5 8000 8000 255\n",
            "no pixels": b"P5 0 0 255\n"}


@pytest.mark.parametrize("sort", bad_files())
def test_bad_files_have_a_clear_error(sort):
    content = bad_files()[sort]
    tracemalloc.start()
    with pytest.raises(ValueError, match="this file.*give a whole PNG"):
        prepare_digit(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


# ------------------------------------------------- what is not a digit

def pictures_without_digit(rng):
    """Draw 100 pictures: letters, faces, textures, noise, gradients."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in ("DejaVuSans", "DejaVuSerif-Bold", "cmr10", "cmtt10",
                 "STIXGeneralItalic"):
        font = ImageFont.truetype(str(fonts / f"{name}.ttf"), 120)
        for letter in "AEFKMNRWXY":
            image = Image.new("L", (200, 200), 235)
            ImageDraw.Draw(image).text((100, 100), letter, 20, font, "mm")
            yield image
    for _ in range(15):
        image = Image.new("L", (200, 200), 235)
        draw, pen = ImageDraw.Draw(image), int(rng.integers(3, 9))
        draw.ellipse((30, 30, *rng.integers(150, 180, 2)), None, 20, pen)
        for x in rng.integers(60, 75), rng.integers(110, 125):
            draw.ellipse((x, 75, x + 12, 90), 20)
        draw.line((100, 90, 95, 115), 20, pen)
        draw.arc((65, 95, 135, rng.integers(135, 150)), 20, 160, 20, pen)
        yield image
    rows, columns = np.indices((200, 200)) - 100
    for i in range(15):
        yield ndimage.gaussian_filter(rng.normal(size=(200, 200)),
                                      rng.uniform(1, 12, 2))
        if i < 10:
            yield 150 + rng.normal(0, 2 + 5 * i, (200, 200))
            yield [np.hypot(rows, columns), rows + i * columns][i % 2]


def test_pictures_without_digit_are_not_read(nb, mnist, rng):
    data = mnist.subset(20_000, 1)
    model = nb.MLP(nb.SIZES, "relu", 0)
    nb.train_distorted(model, data, 5, 128, 0.003, 0, None,
                       distortion=(1.5, 0.5))
    known = helpers.known_digits(data.X_train, data.y_train)
    assert known.max() <= 15 / 32       # four bits, on the pad

    def sure(X):
        return (helpers.read_digits(model, np.array(X), known).max(axis=1)
                > 0.7).mean()

    pictures, ready = list(pictures_without_digit(rng)), []
    for picture in pictures:
        try:
            ready.append(prepare_digit(picture))
        except ValueError:
            ready.append(np.zeros(784, np.float32))
    assert len(pictures) == 100 and sure(ready) <= 0.05
    blank = np.zeros((1, 784), np.float32)
    assert (helpers.read_digits(model, blank, known) == 0.1).all()
    assert sure(mnist.X_test[:500]) > 0.8


# ------------------------------------------------------- photos of digits

@pytest.mark.parametrize("kind", ["clean", "mixed", *helpers.DAMAGES,
                                  *helpers.SCENES[:-1]])
def test_photographs_are_readable(kind, five):
    photo = helpers.photograph(five, np.random.default_rng(4), [kind])
    assert photo.dtype == np.uint8 and photo.ndim == 2
    assert same_digit(prepare_digit(photo), five)


def test_confidence_needed_is_the_lowest_that_is_right_enough():
    confidence = np.linspace(0.99, 0.5, 1000)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    right = np.zeros(1000, int)                 # the labels if all is right
    assert helpers.confidence_needed(probs, right) == 0.5
    wrong = right.copy()
    wrong[600:] = 1                             # the unsure ones are wrong
    needed = helpers.confidence_needed(probs, wrong)
    assert confidence[603] < needed <= confidence[599]
    assert helpers.confidence_needed(probs, wrong, 50.0) < needed
    assert helpers.confidence_needed(probs[:100], right[:100]) == 1  # too few
