"""The committed notebook and PDF are one clean run, and it can be repeated.

The small runs start with the first test; those that wait for them come last.
"""

import ast
import base64
import dis
import re
import sys
import types
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import nbformat.v4 as v4
import pytest

import checks
import grade
from definitions import NOTEBOOK, ROOT, tagged

# Headings that answer the handout, in the order of the house style.
SECTIONS = ("handout", "setup", "data", "network from scratch", "gradients",
            "code", "checks", "activations", "sigmoid", "tanh", "relu",
            "which activation", "pytorch and adam", "comparison",
            "l2 regularization", "experiments", "conclusions", "references")


@pytest.fixture(scope="module")
def committed():
    return checks.read(NOTEBOOK)


@pytest.fixture(scope="module")
def code(committed):
    """Return the code cells, those with any mark of a hidden one apart."""
    cells = checks.code_cells(committed)
    hidden = [cell for cell in cells if any(hiding_marks(cell))]
    return types.SimpleNamespace(cells=cells, hidden=hidden, visible=[
        cell for cell in cells if cell not in hidden])


def hiding_marks(cell):
    """Say which of the four marks of a hidden cell this one has."""
    return ("hide-input" in cell.metadata.get("tags", []),
            cell.metadata.get("jupyter", {}).get("source_hidden", False),
            cell.metadata.get("cellView") == "form",
            bool(re.match(r"# @title \S", cell.source)))


def num_lines(*cells):
    return sum(len(cell.source.splitlines()) for cell in cells)


# ------------------------------------------------------ the committed files


def test_committed_files_show_one_clean_run(committed):
    assert checks.run_problems(committed) == []
    assert checks.origin_problems(committed) == []
    assert checks.pdf_problems(NOTEBOOK.with_suffix(".pdf"), committed) == []


def test_colab_is_asked_for_a_gpu_and_a_table_of_contents(committed):
    assert committed.metadata.accelerator == "GPU"
    assert committed.metadata.colab.toc_visible


def test_sections_answer_the_handout_in_order(committed):
    assert committed.cells[0].source.startswith("# ")
    left = (heading.lower() for heading in checks.headings(committed))
    for wanted in SECTIONS:
        assert any(wanted in heading for heading in left), wanted


def test_captions_count_up_and_references_lead_somewhere(committed):
    found = [(kind, number) for kind, number, _ in checks.captions(committed)]
    assert found[0] == ("Table", 1)
    for kind in ("Figure", "Table"):
        numbers = [number for k, number in found if k == kind]
        assert numbers == list(range(1, len(numbers) + 1))
    exist = {f"{kind} {number}" for kind, number in found} | {
        f"Section {heading.split()[0].rstrip('.')}"
        for heading in checks.headings(committed)}
    text = "\n".join(checks.shown_texts(committed))
    assert exist >= {f"{kind} {number}" for kind, number in re.findall(
        r"\b(Figure|Table|Section)s?\s+(\d+(?:\.\d+)?)", text)}


def test_code_cells_are_short(code):
    assert max(map(num_lines, code.cells)) <= 40
    assert max(map(num_lines, code.hidden)) <= 20
    assert num_lines(*code.hidden) <= 872 and num_lines(*code.cells) <= 1687


def test_hidden_cells_bear_all_marks(code):
    for cell in code.hidden:
        assert all(hiding_marks(cell)), cell.source


def test_visible_code_needs_nothing_that_only_hidden_cells_bind(code):
    unseen = set().union(*map(bound, code.hidden)).difference(
        *map(bound, code.visible))
    for cell in code.visible:
        assert not unseen & used(compile(cell.source, "", "exec"))


def test_few_names_are_bound_in_several_cells(code):
    times = Counter(name for cell in code.cells for name in bound(cell))
    assert len([name for name, count in times.items() if count > 1]) <= 5


def test_most_visible_code_follows_text(committed, code):
    bare = [cell for before, cell in zip(committed.cells, committed.cells[1:])
            if before.cell_type == "code" and cell in code.visible]
    assert len(bare) <= 0.3 * len(code.visible)


def bound(cell):
    """Return the names that a cell binds at module level."""
    return named(compile(cell.source, "", "exec"), "STORE_NAME")


def used(code):
    """Return the names that code takes from module level."""
    return named(code, "LOAD_NAME", "LOAD_GLOBAL").union(*(
        used(part) for part in code.co_consts
        if isinstance(part, types.CodeType)))


def named(code, *operations):
    return {step.argval for step in dis.get_instructions(code)
            if step.opname in operations}


def test_definitions_only_import_define_and_set_constants(committed):
    for cell in tagged(committed, "definitions"):
        for node in ast.parse(cell.source).body:
            assert defines(node), ast.unparse(node)


def defines(node):
    """Say whether a statement runs nothing, but for calls of dict."""
    if isinstance(node, ast.Assign):
        value = compile(ast.Expression(node.value), "", "eval")
        return (all(ast.unparse(name).isupper() for name in node.targets)
                and not any("CALL" in step.opname
                            for step in dis.get_instructions(value)))
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef,
                             ast.ClassDef))


def test_headline_has_a_row_for_every_model_of_the_handout(committed):
    _, rows = checks.headline(committed)
    assert [row["model"] for row in rows] == list(grade.TOLERANCE)[:-1]
    by_name = {row["model"]: row for row in rows}
    for name in ("sigmoid", "tanh", "relu"):
        assert by_name[name]["activation"] == name
    assert by_name["adam"]["optimizer"] == "Adam, PyTorch"
    assert float(by_name["l2"]["α"]) > 0


def test_readme_shows_the_committed_results(committed):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in checks.headline(committed)[1]:
        assert f"{row['test accuracy']} | {row['seeds']}" in " ".join(
            readme.split())
    pictures = [base64.b64decode(output.data["image/png"])
                for cell in checks.code_cells(committed)
                for output in cell.outputs
                if output.get("data", {}).get("text/plain") == "Figure 4"]
    assert [(ROOT / ".nbconvert/activations.png").read_bytes()] == pictures


# ----------------------------------------------- the cell that finds helpers


@pytest.fixture
def fetch(committed, tmp_path, monkeypatch):
    """Return a function that runs the cell in a new folder, as on Colab.

    It takes what the user's upload button does (None: there is no Colab) and
    returns the content of helpers.py.
    """
    cell, *_ = (cell for cell in checks.code_cells(committed)
                if "google.colab" in cell.source)
    monkeypatch.chdir(tmp_path)

    def fetch(upload):
        colab = upload and types.SimpleNamespace(
            files=types.SimpleNamespace(upload=upload))
        monkeypatch.setitem(sys.modules, "google.colab", colab)
        exec(cell.source, {})
        return Path("helpers.py").read_text()
    return fetch


def test_without_helpers_the_error_says_what_to_do(fetch):
    for upload in (None, list):     # not on Colab; a cancelled upload
        with pytest.raises(FileNotFoundError, match=r"Put helpers\.py beside "
                           "this notebook; on Colab, run this cell again"):
            fetch(upload)


def test_helpers_that_are_there_stay(fetch):
    Path("helpers.py").write_text("mine")
    assert fetch(None) == "mine"


# The user of Colab uploads helpers.py itself, maybe a second download, or a
# zip of these files.
@pytest.mark.parametrize("names", [
    "helpers.py", "helpers (1).py", ["helpers.py"],
    ["PA1/tests/checks.py", "PA1/helpers.py"],
    ["__MACOSX/PA1/._helpers.py", "PA1/helpers.py", "PA1/tests/checks.py"]])
def test_colab_user_uploads(fetch, names):
    def upload():
        if isinstance(names, str):
            Path(names).write_text("good")
            return [names]
        with ZipFile("PA1_EE00B000 (1).zip", "w") as archive:
            for name in names:
                archive.writestr(name, "good" if name.endswith("/helpers.py")
                                 or name == "helpers.py" else "other")
        return [archive.filename]

    assert fetch(upload) == "good"
    assert Path("tests/checks.py").exists() == ("PA1/tests/checks.py" in names)


def test_a_photo_is_the_bytes_that_the_upload_returns(code, monkeypatch):
    (source,) = [cell.source for cell in code.cells
                 if "upload = False" in cell.source]
    start = source.replace("upload = False", "upload = True").split("steps")[0]
    names, chosen = dict(digit_path=""), {}
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(
        files=types.SimpleNamespace(upload=lambda: chosen)))
    with pytest.raises(ValueError, match="no file was chosen"):
        exec(start, names)
    chosen["digit (1).png"] = b"the new one"
    exec(start, names)
    assert names["my_digit"] == b"the new one"


# --------------------------------------------------------------- small runs


def test_small_run_is_clean_and_obeys_its_parameters(runs):
    notebook = checks.read(runs.plain())
    assert checks.run_problems(notebook) == []
    caption, rows = checks.headline(notebook)
    assert "1 epochs" in caption
    assert [row["seeds"] for row in rows[:3]] == ["2"] * 3
    text = " ".join(checks.shown_texts(notebook))
    assert "(640, 784)" in text and "(200, 784)" in text
    # A page that is loaded again has lost the updates of the first cell.
    assert "<strong>Abstract.</strong>" in v4.writes(notebook)


def test_small_run_leaves_the_recognizer(runs, nb, mnist):
    model = nb.MLP.load(runs.plain().with_name("recognizer.npz"))
    shown = checks.headline(checks.read(runs.plain()))[1][-1]["test accuracy"]
    _, accuracy = nb.evaluate(model, mnist.X_test[:200], mnist.y_test[:200])
    assert f"{accuracy:.2f}" == shown


# What these cells show are times; that they run again is all that counts.
TIMED = ("speed = time_epochs(", "# @title Comment on speed",
         "# @title Time\n")


def test_every_cell_can_be_run_again_alone_and_shows_the_same(runs):
    def shown(cell):
        return [output.get("data") or output.text for output in cell.outputs]

    first, again = (checks.code_cells(checks.read(path)) for path in (
        runs.plain(), runs.plain().with_name("again.ipynb")))
    assert (sorted(cell.execution_count for cell in again)
            == list(range(len(again) + 1, 2 * len(again) + 1)))
    for before, after in zip(first, again, strict=True):
        if not any(mark in after.source for mark in TIMED):
            assert shown(before) == shown(after), after.source


def test_colab_gives_the_same_results(runs):
    plain, colab = checks.read(runs.plain()), checks.read(runs.colab())
    assert checks.abstract(colab) == checks.abstract(plain)
    assert checks.headline(colab) == checks.headline(plain)


def test_another_seed_changes_numbers_and_sentences(runs):
    plain, other = checks.read(runs.plain()), checks.read(runs.other_seed())
    assert checks.abstract(other) != checks.abstract(plain)
    pairs = zip(checks.headline(plain)[1], checks.headline(other)[1],
                strict=True)
    assert all(a["train loss"] != b["train loss"] for a, b in pairs
               if a["model"] != "committee")
    sentences, others = (
        set(re.findall(r"[^.]+\d[^.]*\.", "\n".join(checks.shown_texts(run))))
        for run in (plain, other))
    assert len(sentences - others) > 20
