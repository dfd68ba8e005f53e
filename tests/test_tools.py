"""The checks, the grader's comparison and the packing can say no."""

import runpy
import sys
from zipfile import ZipFile

import benchmark
import nbformat.v4 as v4
import pytest
from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, NameObject, StreamObject

import checks
import grade
import hand_in

KEYS = ("model", "activation", "optimizer", "learning rate", "α",
        "train loss", "test loss", "train accuracy", "test accuracy",
        "seeds", "seconds")
ROWS = (
    "NumPy|sigmoid|SGD|0.01|0|0.62 ± 0.02|0.61 ± 0.02|81.0 ± 0.9|81.2|5|30",
    "NumPy|ReLU|SGD|0.01|0|0.09 ± 0.00|0.10 ± 0.00|97.40|97.15 ± 0.1|5|30",
    "NumPy|ReLU|SGD|0.1|0|0.001|0.070|99.99|98.20|3|30",
    "PyTorch|ReLU|Adam|0.01|0|0.15|0.20|96.50|96.10|3|60",
    "PyTorch|ReLU|Adam|0.001|0|0.010|0.080|99.70|98.10|3|60",
    "PyTorch, L2|ReLU|Adam|0.001|0.0001|0.080|0.120|99.60|98.20|3|60",
    "NumPy, Section 11|ReLU|Adam|0.003|0|0.050|0.060|99.70|99.35|1|900")
CAPTION = "**Table 1.** All models, 15 epochs."
ABSTRACT = "**Abstract.** ReLU reaches 97.15 %, the best **99.35 %**."
TITLE = "Handwritten digits"


def table(rows):
    lines = ["|".join(KEYS), "|".join([":--"] * len(KEYS)), *rows]
    return "\n".join([CAPTION, ""] + [f"|{line}|" for line in lines])


def notebook_of(rows=ROWS, abstract=ABSTRACT):
    """Return a small notebook that looks like one clean run."""
    def shown(text):
        return v4.new_output("display_data", {"text/markdown": text})

    cells = [
        v4.new_markdown_cell(f"# {TITLE}\n\nName"),
        v4.new_code_cell("show()", execution_count=1,
                         outputs=[shown(abstract), shown(table(rows))],
                         metadata={"tags": ["headline"]}),
        v4.new_markdown_cell("## 1 Setup\n\nSee Table 1, Figure 1.\n\n"
                             "## 11 A better model"),
        v4.new_code_cell("num_epochs = 15", execution_count=2,
                         metadata={"tags": ["parameters"]}),
        v4.new_code_cell("import math\n\n\ndef f(x):\n    return x",
                         execution_count=3,
                         metadata={"tags": ["definitions"]}),
        v4.new_code_cell("draw()", execution_count=4, outputs=[
            shown("**Figure 1.** Losses of every model.")])]
    return v4.new_notebook(cells=cells, metadata={})


def write_pdf(path, notebook, pages=2, title=TITLE, author="Name",
              bookmarks=("1 Setup", "11 A better model"), drop=()):
    """Write a PDF of what a notebook shows, without the texts in `drop`."""
    texts = [TITLE] + [text for text in checks.shown_texts(notebook)
                       if not any(word in text for word in drop)]
    lines = [line for text in texts
             for line in text.replace("*", "").splitlines()]
    writer = PdfWriter()
    font = DictionaryObject({
        NameObject("/Type"): NameObject("/Font"),
        NameObject("/Subtype"): NameObject("/Type1"),
        NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
        NameObject("/BaseFont"): NameObject("/Helvetica")})
    page = writer.add_blank_page(600, 800)
    page[NameObject("/Resources")] = DictionaryObject({
        NameObject("/Font"): DictionaryObject({NameObject("/F"): font})})
    content = StreamObject()
    content.set_data(b"BT /F 8 Tf 20 780 Td 12 TL\n" + b"".join(
        b"(" + line.encode("cp1252", "replace") + b") Tj T*\n"
        for line in lines) + b"ET")
    page[NameObject("/Contents")] = content
    for _ in range(pages - 1):
        writer.add_blank_page(600, 800)
    for bookmark in bookmarks:
        writer.add_outline_item(title=bookmark, page_number=0)
    writer.add_metadata({"/Title": title, "/Author": author})
    writer.write(path)


def write_notebook(path, notebook):
    path.write_text(v4.writes(notebook), encoding="utf-8")


# ---------------------------------------------------------------- the checks


def test_checks_accept_a_clean_run(tmp_path):
    notebook = notebook_of()
    write_notebook(tmp_path / "a.ipynb", notebook)
    write_pdf(tmp_path / "a.pdf", notebook)
    assert checks.run_problems(notebook) == []
    assert checks.layout_problems(notebook) == []
    assert checks.numbering_problems(notebook) == []
    assert checks.origin_problems(tmp_path / "a.ipynb") == []
    assert checks.pdf_problems(tmp_path / "a.pdf", notebook) == []


def stream(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def set_count(notebook, value):
    notebook.cells[5].execution_count = value


def set_output(notebook, output):
    notebook.cells[5].outputs.append(output)


RUN_FAULTS = {
    "not run once each": lambda nb: set_count(nb, 9),
    "not been executed": lambda nb: [
        cell.update(execution_count=None) for cell in nb.cells],
    "error ValueError": lambda nb: set_output(nb, v4.new_output(
        "error", ename="ValueError", evalue="no", traceback=[])),
    "standard error": lambda nb: set_output(nb, stream("hm", "stderr")),
    "a widget": lambda nb: set_output(nb, v4.new_output("display_data", {
        "application/vnd.jupyter.widget-view+json": {}})),
    "a path": lambda nb: set_output(nb, stream("in /home/me/x.py")),
    "a warning": lambda nb: set_output(nb, stream("UserWarning: old")),
    "a progress bar": lambda nb: set_output(nb, stream("10%|#    | 1/10")),
    "no table": lambda nb: nb.cells[1].outputs.pop(),
    "no abstract": lambda nb: nb.cells[1].outputs.pop(0),
    "state of widgets": lambda nb: nb.metadata.update(widgets={}),
}


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_checks_of_the_run(fault):
    notebook = notebook_of()
    RUN_FAULTS[fault](notebook)
    assert fault in str(checks.run_problems(notebook))


def set_source(notebook, cell, source):
    notebook.cells[cell].source = source


LAYOUT_FAULTS = {
    "41 lines": lambda nb: set_source(nb, 5, "x\n" * 40 + "x"),
    "80 columns": lambda nb: set_source(nb, 5, "x" * 80),
    "more than define: 'train()'": lambda nb: set_source(nb, 4, "train()"),
    "more than define: 'ALL = train()'":
        lambda nb: set_source(nb, 4, "ALL = train()"),
    "more than define: 'rows = 1'": lambda nb: set_source(nb, 4, "rows = 1"),
    "has outputs": lambda nb: nb.cells[4].outputs.append(stream("hello")),
    "no cell tagged 'parameters'": lambda nb: nb.cells.pop(3),
    "no cell tagged 'headline'": lambda nb: nb.cells.pop(1),
}


@pytest.mark.parametrize("fault", LAYOUT_FAULTS)
def test_checks_of_the_layout(fault):
    notebook = notebook_of()
    LAYOUT_FAULTS[fault](notebook)
    assert fault in str(checks.layout_problems(notebook))


NUMBERING_FAULTS = {
    "Figure captions are numbered [1, 1]":
        lambda nb: nb.cells.append(nb.cells[5]),
    "Table captions are numbered [2]":
        lambda nb: nb.cells[1].outputs[1].data.update({
            "text/markdown": "**Table 2.** All."}),
    "not Table 1, at the top": lambda nb: nb.cells.insert(1, nb.cells[5]),
    "no Figure 7": lambda nb: set_source(nb, 2, "See Figure 7."),
    "no Section 9.1": lambda nb: set_source(nb, 2, "See Section 9.1."),
}


@pytest.mark.parametrize("fault", NUMBERING_FAULTS)
def test_checks_of_the_numbering(fault):
    notebook = notebook_of()
    NUMBERING_FAULTS[fault](notebook)
    assert fault in str(checks.numbering_problems(notebook))


def test_check_of_the_sections():
    notebook = notebook_of()
    sections = [v4.new_markdown_cell(f"## {i} {name}")
                for i, name in enumerate(checks.SECTIONS)]
    notebook.cells[1:] = sections
    assert checks.section_problems(notebook) == []
    sections[3:5] = sections[4:2:-1]        # two of them exchanged
    notebook.cells[1:] = sections
    assert "out of order" in str(checks.section_problems(notebook))
    notebook.cells.pop(0)
    assert "not the title" in str(checks.section_problems(notebook))


@pytest.mark.parametrize("fault, change", [
    ("other parameters", lambda nb: nb.cells[3].metadata.update(
        tags=["injected-parameters"])),
    ("a path in the metadata", lambda nb: nb.metadata.update(
        papermill={"output_path": "/tmp/out.ipynb"})),
    ("MB, more than 2", lambda nb: set_source(nb, 5, "x" * 2_000_000))])
def test_checks_of_the_file(tmp_path, fault, change):
    notebook = notebook_of()
    change(notebook)
    write_notebook(tmp_path / "a.ipynb", notebook)
    assert fault in str(checks.origin_problems(tmp_path / "a.ipynb"))


PDF_FAULTS = {
    "31 pages": dict(pages=31),
    "lacks the title": dict(title="PA1_RollNumber"),
    "lacks the author": dict(author=""),
    "no bookmark '1 Setup'": dict(bookmarks=()),
    "lacks the abstract": dict(drop=["Abstract"]),
    "ReLU SGD 0.01 0 0.09": dict(drop=["Table 1.**"]),
    "the caption of Table 1": dict(drop=["Table 1.**"]),
    "the caption of Figure 1": dict(drop=["Figure 1.**"]),
}


@pytest.mark.parametrize("fault", PDF_FAULTS)
def test_checks_of_the_pdf(tmp_path, fault):
    write_pdf(tmp_path / "a.pdf", notebook_of(), **PDF_FAULTS[fault])
    assert fault in str(checks.pdf_problems(tmp_path / "a.pdf",
                                            notebook_of()))


def test_check_of_a_missing_or_broken_pdf(tmp_path):
    assert "can't read" in checks.pdf_problems(tmp_path / "a.pdf",
                                               notebook_of())[0]
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.5 cut short")
    assert "can't read" in checks.pdf_problems(tmp_path / "a.pdf",
                                               notebook_of())[0]


# ----------------------------------------------------------------- grade.py


def changed(row, **values):
    """Return ROWS with some values of one row changed."""
    names = {key.replace(" ", "_"): i for i, key in enumerate(KEYS)}
    rows = [line.split("|") for line in ROWS]
    for key, value in values.items():
        rows[row][names[key]] = str(value)
    return ["|".join(line) for line in rows]


def verdicts(rows):
    lines = list(grade.compare(notebook_of(), notebook_of(rows)))
    return (all(agrees for _, agrees in lines),
            "\n".join(line for line, _ in lines))


def test_grade_of_an_identical_run():
    agree, text = verdicts(ROWS)
    assert agree and text.count("ok") == 4 * len(ROWS)


@pytest.mark.parametrize("row, values, agree", [
    (1, dict(test_accuracy="96.86 ± 0.3"), True),
    (1, dict(test_accuracy=96.84), False),
    (1, dict(train_accuracy=97.71), False),
    (1, dict(seconds=900), True),
    (0, dict(test_accuracy=82.6), True),
    (0, dict(test_accuracy=82.8), False),
    (3, dict(test_accuracy=97.5, test_loss=0.29), True),
    (3, dict(test_accuracy=97.7), False),
    (4, dict(test_accuracy=98.5), False),
    (6, dict(test_accuracy=99.21), True),
    (6, dict(test_accuracy=99.19), False),
    (1, dict(test_loss=0.109), True),
    (1, dict(test_loss=0.113), False),
    (1, dict(train_loss=0.078), False),
    (2, dict(train_loss=0.003), True)])
def test_grade_of_another_number(row, values, agree):
    assert verdicts(changed(row, **values))[0] == agree


@pytest.mark.parametrize("after, agree", [(98.82, True), (98.85, False)])
def test_grade_allows_what_seeds_differ_by(after, agree):
    before = changed(4, test_accuracy="98.10 ± 0.30")
    lines = grade.compare(notebook_of(before),
                          notebook_of(changed(4, test_accuracy=after)))
    assert all(agrees for _, agrees in lines) == agree


def test_grade_of_another_choice():
    rows = changed(5, α=0.001, train_loss=0.5, test_accuracy=97.0)
    agree, text = verdicts(rows)
    assert agree and "α 0.0001, now 0.001: another choice" in text
    assert not verdicts(changed(5, α=0.001, test_accuracy=96.0))[0]


@pytest.mark.parametrize("values", [dict(activation="tanh"), dict(seeds=1)])
def test_grade_of_what_cannot_be_compared(values):
    agree, text = verdicts(changed(4, **values))
    assert not agree and "can't be compared" in text
    assert "± 1.50" in text


def test_grade_of_missing_and_additional_rows():
    agree, text = verdicts(ROWS[:-1])
    assert not agree and "not in the new run" in text
    assert not verdicts((*ROWS, ROWS[-1]))[0]
    unexecuted = notebook_of()
    unexecuted.cells[1].outputs = []
    assert [a for _, a in grade.compare(notebook_of(), unexecuted)] == [False]


def test_grade_of_another_length():
    shorter = notebook_of()
    shown = shorter.cells[1].outputs[1].data
    shown["text/markdown"] = shown["text/markdown"].replace("15 ep", "2 ep")
    lines = list(grade.compare(notebook_of(), shorter))
    assert not lines[0][1] and "differ in length" in lines[0][0]


def test_grade_from_the_command_line(tmp_path, monkeypatch, capsys):
    write_notebook(tmp_path / "committed.ipynb", notebook_of())
    write_notebook(tmp_path / "same.ipynb", notebook_of())
    write_notebook(tmp_path / "other.ipynb",
                   notebook_of(changed(1, test_accuracy=90)))
    monkeypatch.setattr(grade, "NOTEBOOK", tmp_path / "committed.ipynb")
    for name, code, words in (("same", 0, "All headline numbers agree"),
                              ("other", 1, "90.00  ± 0.30  DIFFERS")):
        monkeypatch.setattr(sys, "argv",
                            ["grade.py", str(tmp_path / f"{name}.ipynb")])
        assert grade.main() == code
        assert words in capsys.readouterr().out


def test_grade_executes_the_notebook(tmp_path, monkeypatch, capsys):
    notebook = notebook_of()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(source="x = 1", execution_count=None)
    text = {"text/markdown": table(ROWS)}
    notebook.cells[1].source = (
        "from IPython.display import Markdown, display\n"
        f"print('10 of 938')\ndisplay(Markdown({text['text/markdown']!r}))")
    notebook.metadata.kernelspec = {"name": "python3", "language": "python",
                                    "display_name": "Python 3"}
    write_notebook(tmp_path / "committed.ipynb", notebook_of())
    write_notebook(tmp_path / "source.ipynb", notebook)
    for name, path in (("NOTEBOOK", "source"), ("RUN", "run")):
        monkeypatch.setattr(grade, name, tmp_path / f"{path}.ipynb")
    monkeypatch.setattr(grade, "ROOT", tmp_path)
    executed = checks.read(grade.execute())
    assert "10 of 938" in capsys.readouterr().out
    assert all(a for _, a in grade.compare(notebook_of(), executed))


# --------------------------------------------------------------- hand_in.py


@pytest.fixture
def folder(tmp_path):
    """Return a folder that is ready to be handed in."""
    write_notebook(tmp_path / "PA1_RollNumber.ipynb", notebook_of())
    write_pdf(tmp_path / "PA1_RollNumber.pdf", notebook_of())
    for name in hand_in.OTHERS:
        (tmp_path / name).write_text(name)
    return tmp_path


def test_hand_in(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    target = hand_in.hand_in("EE25-m_01", folder)
    assert target == folder / "PA1_EE25-m_01.zip"
    with ZipFile(target) as archive:
        assert sorted(archive.namelist()) == [
            "PA1_EE25-m_01.ipynb", "PA1_EE25-m_01.pdf", "README.md",
            "helpers.py", "requirements.txt"]
        for name in archive.namelist():
            source = name.replace("EE25-m_01", "RollNumber")
            assert archive.read(name) == before[folder / source]
    assert set(folder.iterdir()) - set(before) == {target}


def refused(folder, roll="EE25"):
    before = set(folder.iterdir())
    with pytest.raises(ValueError) as error:
        hand_in.hand_in(roll, folder)
    assert set(folder.iterdir()) == before      # no zip, nothing unfinished
    return str(error.value)


@pytest.mark.parametrize("roll", ["", "EE 25", "../EE25", "EE25/1", "EÉ25",
                                  "EE25\n", "a.b", "C:EE"])
def test_hand_in_refuses_a_bad_roll_number(folder, roll):
    assert "roll number" in refused(folder, roll)


@pytest.mark.parametrize("name", ["PA1_RollNumber.ipynb",
                                  "PA1_RollNumber.pdf", *hand_in.OTHERS])
def test_hand_in_refuses_an_incomplete_folder(folder, name):
    (folder / name).unlink()
    assert f"{name} is missing" in refused(folder)


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_hand_in_refuses_what_is_not_one_clean_run(folder, fault):
    notebook = notebook_of()
    RUN_FAULTS[fault](notebook)
    write_notebook(folder / "PA1_RollNumber.ipynb", notebook)
    assert fault in refused(folder)


def test_hand_in_refuses_the_pdf_of_another_run(folder):
    write_pdf(folder / "PA1_RollNumber.pdf",
              notebook_of(changed(6, test_accuracy="99.30")))
    assert "NumPy, Section 11 ReLU Adam 0.003" in refused(folder)


def test_hand_in_from_the_command_line(folder, monkeypatch, capsys):
    def code(roll):
        monkeypatch.setattr(sys, "argv", ["hand_in.py", roll, "--folder",
                                          str(folder)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(hand_in.__file__, run_name="__main__")
        return stopped.value.code

    assert code("EE/25") == 1
    assert "roll number" in capsys.readouterr().err
    assert not list(folder.glob("*.zip"))
    assert code("EE25") == 0
    assert (folder / "PA1_EE25.zip").is_file()


# ------------------------------------------------------------- benchmark.py


def test_benchmark_tables(nb, mnist):
    speed = benchmark.speed_table(nb, mnist, 64, 1)
    for name in [*nb.contestants(mnist), "NumPy, image by image"]:
        assert name in speed
    scaling = benchmark.scaling_table(nb, mnist, 64, 1)
    for trial in ("batch 16", "batch 1024", "widths 1000-500-200"):
        assert trial in scaling
