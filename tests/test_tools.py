"""The checks, the grader's comparison and the packing can say no."""

import hashlib
import json
import os
import subprocess
import sys
import types
from zipfile import ZipFile

import nbformat.v4 as v4
import pytest
from matplotlib.figure import Figure
from pypdf import PdfWriter

import checks
import grade
import hand_in

ROW = {"activation": "relu", "optimizer": "SGD, NumPy", "learning rate": "0.1",
       "α": "0", "train loss": "0.08", "test loss": "0.100 ± 0.001",
       "train accuracy": "99.00", "test accuracy": "98.20", "seeds": "3",
       "seconds": "30"}
HEADLINE, TEXT, PARAMETERS, DEFINITIONS, FIGURE = range(1, 6)
HIDDEN = dict(tags=["hide-input"], cellView="form",
              jupyter={"source_hidden": True})
MODELS = list(grade.TOLERANCE)[:-1]
HELPERS_MD5 = hashlib.md5(b"helpers.py").hexdigest()


def table(changes):
    """Return a headline table; some values of some rows are changed."""
    rows = [{"model": name} | ROW | changes.get(name, {}) for name in MODELS]
    return "\n|".join([
        "**Table 1.** All models, 15 epochs.\n", "|".join(rows[0]),
        "--|" * len(rows[0]), *("|".join(row.values()) for row in rows)])


def notebook_of(**changes):
    """Return a small notebook that looks like one clean run."""
    def code(source, *texts, **metadata):
        return v4.new_code_cell(source, execution_count=next(counts), outputs=[
            v4.new_output("display_data", {"text/markdown": text})
            for text in texts], metadata=metadata)

    counts = iter(range(1, 9))
    sections = "\n\n".join(f"## {number} {name}" for number, name
                         in enumerate(checks.SECTIONS))
    return v4.new_notebook(metadata=dict(
        accelerator="GPU", colab={"toc_visible": True}, kernelspec=dict(
            name="python3", language="python", display_name="Python")), cells=[
        v4.new_markdown_cell("# Digits\n\nName"),
        code("# @title Results\nshow()", "**Abstract.** Best: 99.35 %.",
             table(changes), **HIDDEN | dict(tags=["headline", "hide-input"])),
        v4.new_markdown_cell("See Figure 1, Section 1.\n\n" + sections),
        code("a = 1", tags=["parameters"]),
        code("SIZE = 1", tags=["definitions"]),
        code("# @title Figure 1\nlines = draw()", "**Figure 1.** Losses.",
             **HIDDEN)])


def write(path, notebook):
    path.write_text(v4.writes(notebook), encoding="utf-8")


def write_pdf(path, notebook, pages=2, title="Digits", author="Name",
              without="nothing"):
    """Write a PDF of what a notebook shows, without one of its texts."""
    writer, code = PdfWriter(), checks.code_cells(notebook)
    for texts in (checks.shown_texts(notebook),
                  [HELPERS_MD5, *(cell.source for cell in code)]):
        figure = Figure((8, 11))
        figure.text(0, 1, "\n".join(text.replace("*", "") for text in texts
                                    if without not in text), va="top", size=6)
        figure.savefig(path, format="pdf")
        writer.append(path)
        while len(writer.pages) < pages:
            writer.add_blank_page(600, 800)
    for heading in [*checks.headings(notebook), checks.APPENDIX]:
        if without not in heading:
            writer.add_outline_item(title=heading, page_number=pages * (
                heading == checks.APPENDIX))
    writer.add_metadata({"/Title": title, "/Author": author})
    writer.write(path)


def shows(kind, **values):
    return dict(outputs=[v4.new_output(kind, **values)])


# Which check finds what, when which cell or metadata is changed how.
@pytest.mark.parametrize("kind, fault, place, changes", [
    ("run", "not run once each", FIGURE, dict(execution_count=9)),
    ("run", "error ValueError", FIGURE, shows("error", ename="ValueError")),
    ("run", "standard error", FIGURE, shows("stream", name="stderr")),
    ("run", "a widget", FIGURE, shows("display_data", data={"widget": ""})),
    ("run", "a path", FIGURE, shows("stream", text="in /home/me/x.py")),
    ("run", "a warning", FIGURE, shows("stream", text="UserWarning: old")),
    ("run", "a progress bar", FIGURE, shows("stream", text="10%|#   |")),
    ("run", "no table", HEADLINE, dict(outputs=[])),
    ("run", "no abstract", HEADLINE, dict(outputs=[])),
    ("run", "state of widgets", "metadata", dict(widgets={})),
    ("layout", "41 lines", PARAMETERS, "x\n" * 41),
    ("layout", "more than define: 'f()'", DEFINITIONS, "f()"),
    ("layout", "define: 'rows = 1'", DEFINITIONS, "rows = 1"),
    ("layout", "define: 'ALL = f()'", DEFINITIONS, "ALL = f()"),
    ("layout", "no GPU", "metadata", dict(accelerator="TPU")),
    ("layout", "no table of contents", "metadata", dict(colab={})),
    *(("hidden", f"half hidden, without {mark}", FIGURE,
       dict(metadata=HIDDEN | {key: {}})) for key, mark in zip(
           HIDDEN, ("hide-input", "cellView", "source_hidden"))),
    ("hidden", "half hidden, without # @title", FIGURE, "# @title \ndraw()"),
    ("hidden", "'# @title E' is half", PARAMETERS, "# @title E"),
    ("hidden", "hides 21 lines", FIGURE, "#\n" * 21),
    ("hidden", "hidden cells have 661 lines", FIGURE, "#\n" * 659),
    ("hidden", "all code cells have 1251", PARAMETERS, "#\n" * 1246),
    ("hidden", "bind: ['lines']", DEFINITIONS, "def f(): return lines"),
    ("numbering", "numbered [1, 1]", TEXT, "**Figure 1.** One."),
    ("numbering", "not Table 1, at the", 0, "**Figure 1.** One."),
    ("numbering", "no Figure 7", TEXT, "See Figure 7."),
    ("numbering", "no Section 1", TEXT, "See Section 1."),
    ("section", "not the title", 0, "No title"),
    ("section", "with 'setup', or out of order", TEXT, "## Setup\n## Handout"),
    ("origin", "other parameters", PARAMETERS,
     dict(metadata={"tags": ["injected-parameters"]})),
    ("origin", "path in the metadata", "metadata", dict(a="/tmp/out.ipynb")),
    ("origin", "who ran it", "metadata", dict(executionInfo={
        "user": {"displayName": "A Student", "userId": "1"}})),
    ("origin", "MB, more than 2", TEXT, "x" * 2_000_000),
])
def test_checks_of_a_notebook(kind, fault, place, changes):
    notebook, check = notebook_of(), getattr(checks, f"{kind}_problems")
    assert check(notebook) == []
    place = notebook[place] if place == "metadata" else notebook.cells[place]
    place.update(dict(source=changes) if isinstance(changes, str) else changes)
    assert fault in str(check(notebook))


@pytest.mark.parametrize("fault, changes", [
    ("31 pages", dict(pages=31)), ("lacks the author", dict(author="")),
    ("lacks the title", dict(title="PA1_RollNumber")),
    ("no bookmark '1 setup'", dict(without="1 setup")),
    ("lacks the abstract", dict(without="Abstract")),
    ("sgd_tuned relu SGD, NumPy", dict(without="Table 1.**")),
    ("the caption of Figure 1", dict(without="Figure 1.**")),
    ("no bookmark 'Appendix", dict(without="Appendix")),
    ("a line of the cell that begins 'SIZE", dict(without="SIZE")),
    ("the MD5 sum of helpers.py", dict(without=HELPERS_MD5))])
def test_checks_of_a_pdf(fault, changes, tmp_path):
    path, notebook = tmp_path / "a.pdf", notebook_of()
    (tmp_path / "helpers.py").write_text("helpers.py")
    write_pdf(path, notebook)
    assert checks.pdf_problems(path, notebook) == []
    write_pdf(path, notebook, **changes)
    assert fault in str(checks.pdf_problems(path, notebook))


def verdict(new, old=None):
    """Compare two runs, each as it differs from ROWS: agree, lines."""
    lines = list(grade.compare(notebook_of(**old or {}), notebook_of(**new)))
    return (all(agrees for _, agrees in lines),
            "\n".join(line for line, _ in lines))


@pytest.mark.parametrize("quantity", ["train loss", "test loss",
                                      "train accuracy", "test accuracy"])
@pytest.mark.parametrize("name", MODELS)
def test_grade_allows_so_much(name, quantity):
    points, share = grade.TOLERANCE[name]
    before = float(ROW[quantity].split()[0])
    limit = points if "accuracy" in quantity else share * before + 0.002
    for change in (0.99 * limit, 1.01 * limit):
        new = {quantity: str(before - change), "seconds": "1"}
        assert verdict({name: new})[0] == (change < limit)


@pytest.mark.parametrize("new, agree, words", [
    ({}, True, "l2, relu, SGD, NumPy 0.1"),
    ({"train accuracy": "nan"}, False, "nan  ± 0.30  DIFFERS"),
    ({"test accuracy": "98.92 ± 0.3"}, True, "± 0.73  ok"),
    ({"test accuracy": "98.95 ± 0.3"}, False, "± 0.73  DIFFERS"),
    ({"α": "0.1", "train loss": "9", "train accuracy": "97.6"}, True,
     "α 0, now 0.1: another choice"),
    ({"α": "0.1", "train accuracy": "97.4"}, False, "± 1.50  DIFFERS"),
    ({"activation": "tanh"}, False, "can't be compared"),
    ({"optimizer": "Adam, NumPy"}, False, "can't be compared"),
    ({"seeds": "1"}, False, "can't be compared"),
    ({"model": "l1"}, False, "l2: only in one of the runs: DIFFERS")])
def test_grade_says_why(new, agree, words):
    old = {"test accuracy": "98.20 ± 0.30"}
    agrees, text = verdict({"l2": old | new}, {"l2": old})
    assert agrees == agree and words in text


@pytest.mark.parametrize("old, new, words", [
    ("15 epochs", "2 epochs", "differ in length"),
    ("Table 1.", "Table 2.", "shows no headline table")])
def test_grade_needs_two_tables_of_runs_as_long(old, new, words):
    other = v4.reads(v4.writes(notebook_of()).replace(old, new))
    line, agrees = next(grade.compare(notebook_of(), other))
    assert words in line and not agrees


def test_grade_executes_and_compares(tmp_path, monkeypatch, capsys):
    notebook = notebook_of()
    notebook.cells = [notebook.cells[HEADLINE]]
    notebook.cells[0].source = f"""print("10 of 938")
from IPython.display import *; display(Markdown({table({})!r}))"""
    write(tmp_path / "good.ipynb", notebook)
    write(tmp_path / "bad.ipynb", notebook_of(relu={"seeds": "1"}))
    for name, value in (("ROOT", ""), ("NOTEBOOK", "good.ipynb"),
                        ("RUN", "run.ipynb")):
        monkeypatch.setattr(grade, name, tmp_path / value)
    for given, code, words in (
            ([], 0, ("10 of 938", "All headline numbers agree")),
            ([str(tmp_path / "bad.ipynb")], 1, ("numbers DIFFER",))):
        monkeypatch.setattr(sys, "argv", ["", *given])
        assert grade.main() == code
        text = capsys.readouterr().out
        assert all(word in text for word in words)


@pytest.fixture
def folder(tmp_path):
    """Return a folder that can be packed."""
    write(tmp_path / "PA1_RollNumber.ipynb", notebook_of())
    write_pdf(tmp_path / "PA1_RollNumber.pdf", notebook_of())
    for name in hand_in.OTHERS:
        (tmp_path / name).write_text(name)
    return tmp_path


def test_hand_in_packs(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(sys, "argv", ["", "E-m_1", "--folder", str(folder)])
    assert hand_in.main() == 0
    with ZipFile(folder / "PA1_E-m_1.zip") as archive:
        assert {folder / name.replace("E-m_1", "RollNumber"):
                archive.read(name) for name in archive.namelist()} == before


@pytest.mark.parametrize("roll, words, spoil", [
    *((roll, "roll number", lambda notebook, pdf: None) for roll in (
        "", "EE 25", "../EE25", "EÉ25", "EE25\n", "a.b", "C:EE")),
    ("E", "PA1_RollNumber.pdf is missing", lambda notebook, pdf: pdf.unlink()),
    ("E", "can't read PA1_RollNumber.pdf", lambda notebook, pdf:
     pdf.write_bytes(b"%PDF-1.5 cut short")),
    ("E", "not been executed", lambda notebook, pdf:
     write(notebook, v4.new_notebook())),
    ("E", "headline table: recognizer", lambda notebook, pdf:
     write_pdf(pdf, notebook_of(recognizer={"seeds": "2"})))])
def test_hand_in_refuses(folder, monkeypatch, capsys, roll, words, spoil):
    spoil(*(folder / f"PA1_RollNumber.{kind}" for kind in ("ipynb", "pdf")))
    monkeypatch.setattr(sys, "argv", ["", roll, "--folder", str(folder)])
    assert hand_in.main() == 1 and words in capsys.readouterr().err
    assert not list(folder.glob("*.zip"))


def test_hand_in_from_colab(tmp_path, monkeypatch, capsys):
    notebook, downloads = notebook_of(), []
    notebook.cells[3].metadata["executionInfo"] = dict(
        user=dict(displayName="A Student", userId="1"))
    notebook.cells.append(v4.new_code_cell("%run tests/hand_in.py E1"))
    front = {output.data["text/markdown"]: output.update(
        data={"text/markdown": "*The last section puts its summary here.*"})
        for output in notebook.cells[HEADLINE].outputs}
    monkeypatch.setattr(hand_in, "get_ipython", lambda: types.SimpleNamespace(
        user_ns={"front": dict(enumerate(front))}))
    package = types.ModuleType("google.colab")
    package._message = types.SimpleNamespace(
        blocking_request=lambda kind, timeout_sec: {
            "ipynb": json.loads(v4.writes(notebook))})
    package.files = types.SimpleNamespace(download=downloads.append)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    for name in hand_in.OTHERS:
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(sys, "argv", ["", "E1", "--folder", str(tmp_path)])
    assert hand_in.main() == 0, capsys.readouterr().err
    assert downloads == [str(tmp_path / "PA1_E1.zip")]
    with ZipFile(downloads[0]) as archive:
        packed = archive.read("PA1_E1.ipynb").decode()
        assert "A Student" not in packed and "hand_in.py" not in packed


def test_a_console_without_greek_letters(tmp_path):
    folder = tmp_path / "Jürgens Übung 1"
    folder.mkdir()
    notebook = notebook_of()
    notebook.cells[3].outputs = [v4.new_output("error", ename="α",
                                               evalue="± W₁")]
    write(folder / "a.ipynb", notebook)
    ended = subprocess.run(
        [sys.executable, checks.__file__, "a.ipynb"], cwd=folder,
        capture_output=True, env=os.environ | dict(PYTHONIOENCODING="cp1252"))
    assert "error ?: ± W?" in ended.stdout.decode("cp1252")
