"""The checks, the grader's comparison and the packing can say no."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace
from zipfile import ZipFile

import nbformat
import nbformat.v4 as v4
import pytest

import checks
import grade
import hand_in

ROW = {"activation": "relu", "optimizer": "SGD, NumPy", "learning rate": "0.1",
       "α": "0", "train loss": "0.08", "test loss": "0.100 ± 0.001",
       "train accuracy": "99.00", "test accuracy": "98.20", "seeds": "3"}
HEADLINE, FIGURE = 1, 3


def table(changes):
    """Return a headline table; some values of some rows are changed."""
    rows = [{"model": name} | ROW | changes.get(name, {})
            for name in list(grade.TOLERANCE)[:-1]]
    return "\n|".join([
        "**Table 1.** All models, 15 epochs. Trained on the processor.\n",
        "|".join(rows[0]),
        "--|" * len(rows[0]), *("|".join(row.values()) for row in rows)])


def notebook_of(**changes):
    """Return a small notebook that looks like one clean run."""
    def code(count, source, *texts, **metadata):
        return v4.new_code_cell(source, execution_count=count, outputs=[
            v4.new_output("display_data", {"text/markdown": text})
            for text in texts], metadata=metadata)

    return v4.new_notebook(metadata=dict(kernelspec=dict(
        name="python3", language="python", display_name="Python")), cells=[
        v4.new_markdown_cell("# Digits\n\n**Name**"),
        code(1, "show()", "**Abstract.** Best: 99.35 %.", table(changes),
             tags=["headline"]),
        v4.new_markdown_cell("## 1 Data"),
        code(2, "lines = draw()", "**Figure 1.** Losses.")])


def replaced(notebook, old, new):
    """Return a copy in which a text is replaced wherever it stands."""
    return v4.reads(v4.writes(notebook).replace(old, new))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a folder that can be packed."""
    folder = tmp_path_factory.mktemp("exported")
    for name in hand_in.OTHERS:
        (folder / name).write_text(name)
    nbformat.write(notebook_of(), folder / "PA1_RollNumber.ipynb")
    hand_in.export(folder / "PA1_RollNumber.ipynb")
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """Return a copy of that folder, to be spoiled."""
    return shutil.copytree(exported, tmp_path / "copy")


# ------------------------------------------------------------------- checks


def shows(kind, **values):
    return dict(outputs=[v4.new_output(kind, **values)])


# Which check finds what, when which cell or the metadata are changed how.
@pytest.mark.parametrize("check, fault, place, changes", [
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
    ("origin", "other parameters", FIGURE,
     dict(metadata={"tags": ["injected-parameters"]})),
    ("origin", "path in the metadata", "metadata", dict(a="/tmp/out.ipynb")),
    ("origin", "who ran it", "metadata", dict(executionInfo={
        "user": {"displayName": "A Student", "userId": "1"}})),
    ("origin", "MB, more than 3", FIGURE, dict(source="x" * 3_000_000))])
def test_a_run_that_is_not_clean_is_noticed(check, fault, place, changes):
    notebook, check = notebook_of(), getattr(checks, f"{check}_problems")
    assert check(notebook) == []
    place = notebook[place] if place == "metadata" else notebook.cells[place]
    place.update(changes)
    assert fault in str(check(notebook))


@pytest.mark.parametrize("old, new, fault", [
    ("Digits", "Letters", "metadata lacks the title 'Letters'"),
    ("Best", "Worst", "page 1 of the PDF lacks the abstract"),
    ("relu tuned", "sgd", "headline table: sgd relu SGD, NumPy"),
    ("Losses", "Errors", "lacks the caption of Figure 1"),
    ("1 Data", "1 Images", "no bookmark '1 Images'"),
    ("draw()", "plot()", "a line of the cell that begins 'lines = plot()'")])
def test_a_pdf_of_another_notebook_is_noticed(exported, old, new, fault):
    path, notebook = exported / "PA1_RollNumber.pdf", notebook_of()
    assert checks.pdf_problems(path, notebook) == []
    found = checks.pdf_problems(path, replaced(notebook, old, new))
    assert fault in str(found)


def test_a_pdf_that_is_too_long_or_of_other_helpers(folder, monkeypatch):
    monkeypatch.setattr(checks, "MAX_PAGES", 0)
    (folder / "helpers.py").write_text("changed")
    long, other = checks.pdf_problems(folder / "PA1_RollNumber.pdf",
                                      notebook_of())
    assert "before the appendix, more than 0" in long
    assert "appendix lacks the MD5 sum of helpers.py" in other


# -------------------------------------------------------------------- grade


@pytest.mark.parametrize("new, agree, words", [
    ({}, True, "l2 tuned relu SGD, NumPy"),
    ({"train loss": "0.0895"}, True, "± 0.010  ok"),
    ({"train loss": "0.0905"}, False, "± 0.010  DIFFERS"),
    ({"train accuracy": "98.71"}, True, "± 0.30  ok"),
    ({"train accuracy": "98.69"}, False, "± 0.30  DIFFERS"),
    ({"train accuracy": "nan"}, False, "nan  ± 0.30  DIFFERS"),
    ({"test accuracy": "98.92 ± 0.3"}, True, "± 0.73  ok"),
    ({"test accuracy": "98.95 ± 0.3"}, False, "± 0.73  DIFFERS"),
    ({"α": "0.1", "train loss": "9", "train accuracy": "97.6"}, True,
     "α 0, now 0.1: another choice"),
    ({"α": "0.1", "train accuracy": "97.4"}, False, "± 1.50  DIFFERS"),
    *(({key: "9"}, False, "don't show the same") for key in grade.SAME)])
def test_grade_compares_every_number(new, agree, words):
    old = {"test accuracy": "98.20 ± 0.30"}
    lines, agrees = zip(*grade.compare(notebook_of(tanh=old),
                                       notebook_of(tanh=old | new)))
    assert all(agrees) == agree and words in "\n".join(lines)


@pytest.mark.parametrize("old, new, agree", [
    ("15 epochs", "2 epochs", False), ("Table 1.", "Table 2.", False),
    ("Table 1.", "No table.", False), ("processor", "GPU", True),
    ("All models", "The models", True)])
def test_grade_needs_two_tables_of_runs_as_long_anywhere(old, new, agree):
    other = replaced(notebook_of(), old, new)
    for pair in ((notebook_of(), other), (other, notebook_of())):
        lines, agrees = zip(*grade.compare(*pair))
        assert all(agrees) == agree
        assert ("don't show the same" in lines[0]) != agree


def test_grade_executes_and_compares(tmp_path, monkeypatch, capsys):
    notebook = notebook_of()
    notebook.cells = [notebook.cells[HEADLINE]]
    notebook.cells[0].source = f"""print("10 of 938")
from IPython.display import *; display(Markdown({table({})!r}))"""
    nbformat.write(notebook, tmp_path / "good.ipynb")
    nbformat.write(notebook_of(relu={"seeds": "1"}), tmp_path / "bad.ipynb")
    monkeypatch.setattr(grade, "ROOT", tmp_path)
    monkeypatch.setattr(grade, "NOTEBOOK", tmp_path / "good.ipynb")
    for given, code, words in (
            ([], 0, "10 of 938.*All headline numbers agree"),
            ([str(tmp_path / "bad.ipynb")], 1, "numbers DIFFER")):
        monkeypatch.setattr(sys, "argv", ["", *given])
        assert grade.main() == code
        assert re.search(words, capsys.readouterr().out, re.DOTALL)


# ------------------------------------------------------------------ hand in


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
     nbformat.write(v4.new_notebook(), notebook)),
    ("E", "headline table: recognizer", lambda notebook, pdf:
     nbformat.write(notebook_of(recognizer={"seeds": "2"}), notebook))])
def test_hand_in_refuses(folder, monkeypatch, capsys, roll, words, spoil):
    spoil(*(folder / f"PA1_RollNumber.{kind}" for kind in ("ipynb", "pdf")))
    monkeypatch.setattr(sys, "argv", ["", roll, "--folder", str(folder)])
    assert hand_in.main() == 1 and words in capsys.readouterr().err
    assert not list(folder.glob("*.zip"))


def test_hand_in_from_colab(tmp_path, monkeypatch, capsys):
    notebook, downloads = notebook_of(), []
    notebook.cells[3].metadata["executionInfo"] = dict(
        user=dict(displayName="A Student", userId="1"))
    notebook.cells.insert(3, v4.new_code_cell(
        "files.upload()", execution_count=2, outputs=[v4.new_output(
            "stream", text="Saving A Student.jpg to A Student.jpg")]))
    notebook.cells[4].execution_count = 3
    notebook.cells.append(v4.new_code_cell("%run tests/hand_in.py E1"))
    front = {output.data["text/markdown"]: output.update(
        data={"text/markdown": "*The last section puts its summary here.*"})
        for output in notebook.cells[HEADLINE].outputs}
    monkeypatch.setattr(hand_in, "get_ipython", lambda: SimpleNamespace(
        user_ns={"front": dict(enumerate(front))}))
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(
        files=SimpleNamespace(download=downloads.append),
        _message=SimpleNamespace(blocking_request=lambda kind, timeout_sec: {
            "ipynb": json.loads(v4.writes(notebook))})))
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
    nbformat.write(notebook, folder / "a.ipynb")
    ended = subprocess.run(
        [sys.executable, checks.__file__, "a.ipynb"], cwd=folder,
        capture_output=True, env=os.environ | dict(PYTHONIOENCODING="cp1252"))
    assert "error ?: ± W?" in ended.stdout.decode("cp1252")
