"""The committed notebook and PDF are one clean run, and it can be repeated.

The small runs start with the first test; those that wait for them come last.
"""

import base64
import re
import sys
import types
from zipfile import ZipFile

import nbformat.v4 as v4
import pytest

import checks
import grade
from definitions import NOTEBOOK, ROOT

PDF = NOTEBOOK.with_suffix(".pdf")


@pytest.fixture(scope="module")
def committed():
    return checks.read(NOTEBOOK)


# ------------------------------------------------------ the committed files


@pytest.mark.parametrize("check", [
    checks.run_problems, checks.origin_problems, checks.layout_problems,
    checks.numbering_problems, checks.section_problems,
    checks.hidden_problems])
def test_committed_notebook_is_one_clean_run(committed, check):
    assert check(committed) == []


def test_committed_pdf_shows_the_committed_run(committed):
    assert checks.pdf_problems(PDF, committed) == []


def test_headline_has_a_row_for_every_model_of_the_handout(committed):
    _, rows = checks.headline(committed)
    assert [row["model"] for row in rows] == list(grade.TOLERANCE)[:-1]
    assert [row["activation"] for row in rows[:3]] == ["sigmoid", "tanh",
                                                       "relu"]
    assert {row["model"]: row["optimizer"] for row in rows}["adam"] == (
        "Adam, PyTorch")
    assert float({row["model"]: row["α"] for row in rows}["l2"]) > 0
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
    with pytest.raises(FileNotFoundError, match=r"Put helpers\.py beside"):
        exec(setup_cell(), {})


HELPERS = (ROOT / "helpers.py").read_bytes()


# The user of Colab uploads helpers.py itself, maybe a second download, or a
# zip of these files.
@pytest.mark.parametrize("names", [
    "helpers.py", "helpers (1).py", ["helpers.py"],
    ["PA1/tests/checks.py", "PA1/helpers.py"],
    ["__MACOSX/PA1/._helpers.py", "PA1/helpers.py", "PA1/tests/checks.py"]])
def test_colab_user_uploads(tmp_path, monkeypatch, names):
    def upload():
        if isinstance(names, str):
            (tmp_path / names).write_bytes(HELPERS)
            return {names: HELPERS}
        path = tmp_path / "PA1_EE00B000 (1).zip"
        with ZipFile(path, "w") as archive:
            for name in names:
                good = name.split("/")[-1] == "helpers.py"
                archive.writestr(name, HELPERS if good else b"something else")
        return {path.name: path.read_bytes()}

    on_colab(tmp_path, monkeypatch, upload)
    exec(setup_cell(), {})
    assert (tmp_path / "helpers.py").read_bytes() == HELPERS
    assert (tmp_path / "tests/checks.py").exists() == (
        "PA1/tests/checks.py" in names)


def test_colab_user_cancels(tmp_path, monkeypatch):
    on_colab(tmp_path, monkeypatch, lambda: {})
    with pytest.raises(FileNotFoundError, match="run this cell again"):
        exec(setup_cell(), {})


def on_colab(folder, monkeypatch, upload):
    package = types.ModuleType("google.colab")
    package.files = types.SimpleNamespace(upload=upload)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    monkeypatch.chdir(folder)


def test_helpers_already_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helpers.py").write_text("mine")
    exec(setup_cell(), {})
    assert (tmp_path / "helpers.py").read_text() == "mine"


# --------------------------------------------------------------- small runs


def test_small_run_is_clean_and_obeys_its_parameters(runs):
    notebook = checks.read(runs.plain())
    assert checks.run_problems(notebook) == []
    assert checks.numbering_problems(notebook) == []
    caption, rows = checks.headline(notebook)
    assert "1 epochs" in caption
    assert [row["seeds"] for row in rows[:3]] == ["2"] * 3
    text = " ".join(checks.shown_texts(notebook))
    assert "(640, 784)" in text and "(200, 784)" in text
    # A page that is loaded again has lost the updates of the first cell.
    assert "<strong>Abstract.</strong>" in v4.writes(notebook)


def test_small_run_leaves_the_recognizer(runs, nb, mnist):
    path = runs.plain().with_name("recognizer.npz")
    model = nb.MLP.load(path)
    shown = checks.headline(checks.read(runs.plain()))[1][-1]["test accuracy"]
    _, accuracy = nb.evaluate(model, mnist.X_test[:200], mnist.y_test[:200])
    assert f"{accuracy:.2f}" == shown.split()[0]


# What these cells show are times; that they run again is all that counts.
TIMED = ("# @title Table 21", "# @title Comment on speed",
         "# @title Time\n")


def test_every_cell_can_be_run_again_alone_and_shows_the_same(runs):
    def shown(outputs):
        return [output.get("data") or output.get("text") or output.ename
                for output in outputs]

    cells = runs.twice()
    assert len(cells) > 50
    for source, first, again in cells:
        for output in [*first, *again]:
            assert output.output_type != "error", (source, output.evalue)
        if not source.startswith(TIMED):
            assert shown(first) == shown(again), source


def test_colab_gives_the_same_results(runs):
    plain, colab = checks.read(runs.plain()), checks.read(runs.colab())
    assert checks.abstract(colab) == checks.abstract(plain)
    (caption, rows), (new_caption, new_rows) = map(checks.headline,
                                                   (plain, colab))
    assert new_caption == caption
    assert [row | {"seconds": ""} for row in new_rows] == [
        row | {"seconds": ""} for row in rows]


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
