"""The drawing pad reads in the browser what Python reads."""

import base64
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright
from skimage.morphology import skeletonize
from test_digits import same_digit

import helpers

PEN, SIDE = 22, 280
# Return the probabilities that each pad shows.
READ = """() => [...document.querySelectorAll(".digit-pad")].map((pad) =>
  [...pad.querySelectorAll("[role=meter]")].map((meter) =>
    meter.ariaValueNow / 100))"""
# Draw digits on a pad, one after the other, as a pointer would; return the
# probabilities that it shows for each, and the milliseconds of its last move.
DRAW = """([pad, drawings]) => {
  const root = document.querySelectorAll(".digit-pad")[pad];
  const svg = root.querySelector("svg"), box = svg.getBoundingClientRect();
  const fire = (type, [x, y]) => {
    const before = performance.now();
    svg.dispatchEvent(new PointerEvent(type, { buttons: 1, isPrimary: true,
      clientX: box.left + x * box.width / 280,
      clientY: box.top + y * box.height / 280 }));
    return performance.now() - before;
  };
  return drawings.map((strokes) => {
    root.querySelector("button").click();
    const times = strokes.map((stroke) => stroke.map((point, i) =>
      fire(i ? "pointermove" : "pointerdown", point)));
    return [(READ)()[pad], times.at(-1).at(-1)];
  });
}""".replace("READ", READ)


@pytest.fixture(scope="module")
def model(nb, mnist):
    """Return a small network that reads digits, trained within seconds."""
    model = nb.MLP((784, 100, 10), "relu", 0)
    nb.train_distorted(model, mnist.subset(60_000, 1), 2, 128, 0.003, 0, None,
                       distortion=(1, 0.5))
    return model


@pytest.fixture(scope="module")
def known(mnist):
    return helpers.known_digits(mnist.X_train, mnist.y_train)


@pytest.fixture(scope="module")
def chromium():
    """Return a headless Chromium, if the machine has one."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no Chromium here: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def open_pads(chromium, tmp_path):
    """Return a function that opens a file of pads; refuse any error in it."""
    context, said = chromium.new_context(offline=True), []

    def open_pads(*pads):
        path = tmp_path / "page.html"
        path.write_text("<!doctype html><meta charset=utf-8>\n" + "".join(
            pads), encoding="utf-8")
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url)
                if request.url[:5] not in ("file:", "data:") else None)
        page.goto(path.as_uri())
        return page

    yield open_pads
    context.close()
    assert said == []


@pytest.fixture
def page_of(model, known):
    """Return a function: the HTML of a pad for these images."""
    return lambda X, needed=0.9, model=model: shown_by(
        model, known, X, needed)[0]["text/html"]


def shown_by(model, known, X, needed=0.9):
    """Return the data and the caption that `show_pad` displays."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "display", lambda data, **_: shown.append(data))
        helpers.show_pad(model, known, needed, X, 7, "A pad.")
    return shown


def trace(x):
    """Return strokes through the skeleton of an MNIST digit, in pad units."""
    image = Image.fromarray(x.reshape(28, 28)).resize((112, 112),
                                                      Image.BICUBIC)
    free = set(map(tuple, np.argwhere(skeletonize(np.asarray(image) > 0.5))))
    done, strokes = set(), []

    def around(point, points):
        return {(point[0] + i, point[1] + j) for i in (-1, 0, 1)
                for j in (-1, 0, 1) if i or j} & points

    while free:
        # From an end of the line to the next, straight on at crossings.
        point = min(free, key=lambda p: (len(around(p, free)) != 1, p))
        stroke = [*list(around(point, done))[:1], point]
        free.remove(point)
        while ahead := around(point, free):
            back = np.subtract(point, stroke[-6:][0])
            point = max(ahead, key=lambda p, at=point, back=back: back @
                        np.subtract(p, at))
            stroke.append(point)
            free.remove(point)
        stroke += list(around(point, done | set(stroke[:-8])))[:1]
        done |= set(stroke)
        if len(stroke) > 8 or not strokes:
            strokes.append([[float(column) * 2.5, float(row) * 2.5]
                            for row, column in stroke[:-1:7] + stroke[-1:]])
    return strokes


def picture_of(strokes):
    """Return a drawing of strokes as a gray image, as the pad shows it."""
    image = Image.new("L", (SIDE, SIDE), 255)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        pen.line([tuple(point) for point in stroke], 0, PEN)
        for x, y in stroke:
            pen.circle((x, y), PEN / 2, 0)
    return image


# ---------------------------------------------------------------- in Python

def test_quantized_weights_cost_at_most_three_images(nb, mnist, model):
    small = nb.MLP(model.sizes, model.activation, 0)
    small.biases = model.biases
    small.weights = [q * scale for q, scale in map(helpers._quantize,
                                                   model.weights)]
    before, after = (nb.evaluate(network, mnist.X_test, mnist.y_test)[1]
                     for network in (model, small))
    assert before > 96 and before - after <= 0.03


def test_a_picture_stands_in_where_scripts_do_not_run(model, known, mnist):
    data, caption = shown_by(model, known, mnist.X_test[:10])
    assert base64.b64decode(data["application/pdf"]).startswith(b"%PDF")
    assert f"base64,{data['image/png']}\"></div>" in data["text/html"]
    assert "://" not in data["text/html"]       # works without a network
    assert caption.data == "**Figure 7.** A pad."


@pytest.mark.parametrize("changes, columns, message", [
    ({}, 100, "X must have shape"),
    (dict(activation="gelu"), 784, "activation must be one of"),
    (dict(weights=[np.full((784, 5), np.nan), np.ones((5, 10))]), 784,
     "not finite")])
def test_bad_input(nb, known, changes, columns, message):
    network = nb.MLP((784, 5, 10), "relu", 0)
    vars(network).update(changes)
    with pytest.raises(ValueError, match=message):
        helpers.show_pad(network, known, 0.5, np.zeros((2, columns)), 1, "")


# ----------------------------------------------------------- in the browser

def test_drawn_digits_are_read_as_python_reads_them(
        open_pads, page_of, model, known, mnist):
    page, X = open_pads(page_of(mnist.X_test[:10])), mnist.X_test[:200]
    drawings = [trace(x) for x in X]
    own, times = map(np.array, zip(*page.evaluate(DRAW, [0, drawings])))
    twin = helpers.read_digits(model, np.array([
        helpers.prepare_digit(picture_of(strokes)) for strokes in drawings]),
        known)
    assert (own.argmax(axis=1) == twin.argmax(axis=1)).sum() >= 198
    assert ((own.max(axis=1) > 0.8) == (twin.max(axis=1) > 0.8)).sum() >= 195
    assert np.abs(own - twin).max(axis=1).mean() < 0.02
    assert (own.argmax(axis=1) == mnist.y_test[:200]).sum() >= 194
    assert np.median(times) < 10


@pytest.mark.parametrize("size", [60, 240])
def test_strokes_get_the_width_and_place_of_prepare_digit(
        open_pads, page_of, mnist, size):
    page = open_pads(page_of(mnist.X_test[:1]))
    strokes = [[[20, 20], [20, 20 + size], [20 + size, 20 + size]]]
    page.evaluate(DRAW, [0, [strokes]])
    seen = np.array(page.evaluate("""() => [...document.querySelector(
      ".seen canvas").getContext("2d").getImageData(0, 0, 28, 28).data]"""))
    seen = seen[3::4] / 255
    twin = helpers.prepare_digit(picture_of(strokes))
    assert same_digit(seen, twin, 0.95)     # or a pixel beside it
    assert seen.sum() == pytest.approx(twin.sum(), rel=0.2)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_loaded_digits_have_the_probabilities_of_python(
        nb, mnist, open_pads, page_of, known, activation):
    network, X = nb.MLP((784, 20, 15, 10), activation, 1), mnist.X_test[:3]
    network.weights = [4 * W for W in network.weights]
    network.biases = [b + 0.1 for b in network.biases]
    page = open_pads(page_of(X, model=network))
    network.weights = [q * scale for q, scale in map(helpers._quantize,
                                                     network.weights)]
    for k, probs in enumerate(helpers.read_digits(network, X, known)):
        page.get_by_label(f"Load test digit {k + 1}").click()
        np.testing.assert_allclose(page.evaluate(READ)[0], probs, atol=5e-3)
        assert (np.abs(network.predict_proba(X[k:k + 1]) - probs) > 0.03).any()


def test_mouse_draws_and_clear_clears(open_pads, page_of, mnist):
    page = open_pads(page_of(mnist.X_test[:10], needed=0))
    box, answer = page.locator("svg").bounding_box(), page.locator("output")
    assert answer.inner_text() == ""
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 200, steps=5)
    page.mouse.up()
    page.mouse.move(box["x"] + 40, box["y"] + 40)       # draws no more
    assert answer.inner_text().startswith("1")
    page.get_by_role("button", name="Clear").click()
    assert answer.inner_text() == ""
    assert page.locator("svg path").get_attribute("d") == ""


def test_keyboard_draws_and_loads(open_pads, page_of, mnist):
    page = open_pads(page_of(mnist.X_test[:10], needed=0))
    page.keyboard.press("Tab")
    for key in ["ArrowUp"] * 12 + ["Shift+ArrowDown"] * 24:
        page.keyboard.press(key)
    assert page.locator("output").inner_text().startswith("1")
    for key in ("Tab", "Tab", "Enter"):                 # the first test digit
        page.keyboard.press(key)
    assert page.locator("output").inner_text().startswith("7")


def test_an_answer_below_the_threshold_is_not_sure(open_pads, page_of, mnist):
    page = open_pads(page_of(mnist.X_test[:1], needed=1))
    page.get_by_label("Load test digit 1").click()
    assert page.locator("output").inner_text().startswith("?")
    assert "not sure" in page.locator("output").inner_text()


def test_works_in_a_sandbox_where_scripts_are_made_anew(
        open_pads, page_of, mnist):
    page = open_pads('<iframe sandbox="allow-scripts" srcdoc="<p>"></iframe>')
    page.frames[1].evaluate("""(html) => {  // as front ends insert an output
      document.body.innerHTML = html;
      const old = document.querySelector("script");
      const anew = document.createElement("script");
      anew.textContent = old.textContent;
      old.replaceWith(anew); }""", page_of(mnist.X_test[:1]))
    page.frames[1].get_by_label("Load test digit 1").click()
    assert page.frames[1].locator("output").inner_text().startswith("7")


def test_pads_do_not_disturb_each_other(open_pads, page_of, nb, mnist):
    one, other = page_of(mnist.X_test[:2]), page_of(
        mnist.X_test[:2], model=nb.MLP((784, 5, 10), "tanh", 0))
    page = open_pads(one, one, other)
    assert page.locator("svg").count() == 3
    (reading, _), = page.evaluate(DRAW, [0, [trace(mnist.X_test[0])]])
    assert np.argmax(reading) == 7
    assert page.evaluate(READ) == [reading, [0] * 10, [0] * 10]
    page.evaluate(DRAW, [2, [trace(mnist.X_test[1])]])
    page.evaluate("""() => {    // as Jupyter does where a cell runs again
      const script = document.createElement("script");
      script.textContent = document.scripts[0].textContent;
      document.body.append(script); }""")
    first, second, third = page.evaluate(READ)
    assert first == reading and max(second) == 0 and 0 < max(third) < 1
    names = "() => Object.getOwnPropertyNames(window).length"
    assert page.evaluate(names) == open_pads().evaluate(names)
