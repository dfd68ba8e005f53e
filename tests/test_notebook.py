"""The committed notebook and PDF are one clean run, and it can be repeated.

The small runs start with the first test; those that wait for them come last.
"""

import base64
import re
import sys
import types
from zipfile import ZipFile

import pytest

import checks
from definitions import NOTEBOOK, ROOT

PDF = NOTEBOOK.with_suffix(".pdf")


@pytest.fixture(scope="module")
def committed():
    return checks.read(NOTEBOOK)


# ------------------------------------------------------ the committed files


def test_committed_notebook_is_one_clean_run(committed):
    assert checks.run_problems(committed) == []


def test_committed_notebook_is_small_and_tells_no_path():
    assert checks.origin_problems(NOTEBOOK) == []


def test_cells_are_short_and_definitions_define(committed):
    assert checks.layout_problems(committed) == []


def test_figures_tables_and_references_are_numbered(committed):
    assert checks.numbering_problems(committed) == []


def test_sections_answer_the_handout_in_order(committed):
    assert checks.section_problems(committed) == []


def test_committed_pdf_shows_the_committed_run(committed):
    assert checks.pdf_problems(PDF, committed) == []


def test_headline_has_a_row_for_every_model_of_the_handout(committed):
    assert_headline_is_complete(checks.headline(committed)[1])


def assert_headline_is_complete(rows):
    kinds = [(row["model"].split(",")[0], row["optimizer"]) for row in rows]
    assert [row["activation"] for row in rows[:3]] == ["sigmoid", "tanh",
                                                       "ReLU"]
    assert kinds[:3] == [("NumPy", "SGD")] * 3
    assert ("PyTorch", "Adam") in kinds
    assert any(row["model"] == "PyTorch, L2" and float(row["α"]) > 0
               for row in rows)
    for row in rows:
        for part in ("train", "test"):
            loss, accuracy = (float(row[f"{part} {what}"].split()[0])
                              for what in ("loss", "accuracy"))
            assert 0 <= loss < 10 and 0 <= accuracy <= 100


def test_readme_shows_the_committed_results(committed):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in checks.headline(committed)[1]:
        assert " | ".join([row["test accuracy"], row["seeds"]]) in " ".join(
            readme.split())
    pictures = [base64.b64decode(output.data["image/png"])
                for cell in committed.cells if cell.cell_type == "code"
                for output in cell.outputs
                if output.get("data", {}).get("text/plain") == "Figure 7"]
    assert [(ROOT / ".nbconvert/activations.png").read_bytes()] == pictures


# ---------------------------------------------------------- the first cells


def setup_cell():
    """Return the source of the cell that looks for helpers.py."""
    return next(cell.source for cell in checks.read(NOTEBOOK).cells
                if cell.cell_type == "code" and "google.colab" in cell.source)


def test_without_helpers_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", None)
    with pytest.raises(FileNotFoundError, match=r"Put helpers\.py into"):
        exec(setup_cell(), {})


def test_setup_comes_before_anything_that_needs_helpers():
    sources = [cell.source for cell in checks.read(NOTEBOOK).cells
               if cell.cell_type == "code"]
    first = next(i for i, source in enumerate(sources)
                 if re.search(r"^(import|from) helpers", source, re.M))
    assert sources.index(setup_cell()) < first


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """Return a function that sets what a user of Colab uploads."""
    monkeypatch.chdir(tmp_path)
    package = types.ModuleType("google.colab")
    package.files = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "google.colab", package)

    def uploads(name, write):
        def upload():
            write(tmp_path / name)
            return {name: (tmp_path / name).read_bytes()}
        package.files.upload = upload

    return uploads


HELPERS = (ROOT / "helpers.py").read_bytes()


def test_colab_user_uploads_helpers(tmp_path, colab):
    colab("helpers.py", lambda path: path.write_bytes(HELPERS))
    exec(setup_cell(), {})
    assert (tmp_path / "helpers.py").read_bytes() == HELPERS


@pytest.mark.parametrize("names", [
    ["helpers.py"], ["PA1/README.md", "PA1/helpers.py"],
    ["__MACOSX/PA1/._helpers.py", "PA1/helpers.py"]])
def test_colab_user_uploads_a_zip(tmp_path, colab, names):
    def write(path):
        with ZipFile(path, "w") as archive:
            for name in names:
                good = name.split("/")[-1] == "helpers.py"
                archive.writestr(name, HELPERS if good else b"something else")

    colab("PA1_EE00B000 (1).zip", write)
    exec(setup_cell(), {})
    assert (tmp_path / "helpers.py").read_bytes() == HELPERS


def test_helpers_already_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helpers.py").write_text("mine")
    exec(setup_cell(), {})
    assert (tmp_path / "helpers.py").read_text() == "mine"


# --------------------------------------------------------------- small runs


def without_seconds(notebook):
    caption, rows = checks.headline(notebook)
    return caption, [{key: value for key, value in row.items()
                      if key != "seconds"} for row in rows]


def test_small_run_is_clean(runs):
    notebook = checks.read(runs.plain())
    assert checks.run_problems(notebook) == []
    assert checks.numbering_problems(notebook) == []
    assert_headline_is_complete(checks.headline(notebook)[1])


def test_small_run_obeys_its_parameters(runs):
    notebook = checks.read(runs.plain())
    caption, rows = checks.headline(notebook)
    assert "1 epochs" in caption
    assert [row["seeds"] for row in rows[:3]] == ["2"] * 3
    text = " ".join(checks.shown_texts(notebook))
    assert "(640, 784)" in text and "(200, 784)" in text


def test_small_run_leaves_the_recognizer(runs, nb, mnist):
    path = runs.plain().with_name("recognizer.npz")
    model = nb.MLP.load(path)
    shown = checks.headline(checks.read(runs.plain()))[1][-1]["test accuracy"]
    _, accuracy = nb.evaluate(model, mnist.X_test[:200], mnist.y_test[:200])
    assert f"{100 * accuracy:.2f}" == shown.split()[0]


def test_colab_gives_the_same_results(runs):
    plain, colab = checks.read(runs.plain()), checks.read(runs.colab())
    assert without_seconds(colab) == without_seconds(plain)
    assert checks.abstract(colab) == checks.abstract(plain)


def test_another_seed_changes_numbers_and_sentences(runs):
    plain, other = checks.read(runs.plain()), checks.read(runs.other_seed())
    assert checks.abstract(other) != checks.abstract(plain)
    pairs = zip(checks.headline(plain)[1], checks.headline(other)[1],
                strict=True)
    assert all(a["train loss"] != b["train loss"] for a, b in pairs)
    assert [c[:2] for c in checks.captions(other)] == [
        c[:2] for c in checks.captions(plain)]
    sentences = [set(re.findall(r"[^.]+\d[^.]*\.", text)) for text in (
        "\n".join(checks.shown_texts(run)) for run in (plain, other))]
    assert len(sentences[0] - sentences[1]) > 20
