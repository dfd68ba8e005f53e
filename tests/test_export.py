"""The export makes a PDF of a run, or says what is missing."""

import re
import unicodedata

import nbformat
import nbformat.v4 as v4
import pytest
from pypdf import PdfReader

import checks
from definitions import ROOT
from hand_in import export

CONFIG = ROOT / ".nbconvert" / "config.py"


def pages_of(folder, *cells):
    """Return the text of each page of the PDF that these cells make."""
    path = folder / "strange name (1).ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    return [page.extract_text() for page in PdfReader(export(path)).pages]


def test_small_run_becomes_a_pdf(runs, monkeypatch):
    pdf, notebook = export(runs.plain()), checks.read(runs.plain())
    assert checks.pdf_problems(pdf, notebook) == []
    monkeypatch.setattr(checks, "MAX_FOOT", 0.06)
    assert "of the PDF are white" in str(checks.pdf_problems(pdf, notebook))


# What pandoc writes for TeX must be what Typst understands.
UNUSUAL = r"""# Title

**Name** · 1

## 1 Symbols

$\boldsymbol{A}\odot\Bigl(\mathcal U\|x\|_2\otimes|y|\Bigr)\le\hat\epsilon$,
see Section 1, Section 9, [a place](https://example.org) #hash @at
$5 `a.circle`

$$\begin{aligned}a&=\mathbf 1^\top b\\
&=\sqrt{\tfrac12}\in\mathbb R\end{aligned}$$

---

**Table 1.** A caption.

| a | b |
|:--|--:|
| + 1 | é |

A lead-in
"""


def test_whatever_a_notebook_holds(tmp_path):
    code = '"""`` ``` #x"""\nplt.circle("\\\\ \\"")\n\n\nclass A:\n    x = 1'
    outputs = [v4.new_output("stream", text="\x1b[31mred\x1b[0m " + "x" * 300),
               v4.new_output("display_data", {"text/latex": r"$\alpha$",
                                              "text/plain": "hidden"}),
               v4.new_output("error", ename="E", evalue="v",
                             traceback=["E: \x1b[1mv\x1b[0m"])]
    text = unicodedata.normalize("NFKC", "".join(pages_of(
        tmp_path, *map(v4.new_markdown_cell, UNUSUAL.split("\n\n", 1)),
        v4.new_code_cell(code, outputs=outputs), v4.new_code_cell(""),
        v4.new_code_cell("long()\n" * 120),
        v4.new_code_cell("def apart():\n    pass\n\n\nhelpers.set_up()",
                         metadata={"tags": ["appendix"]}))))
    for shown in ("red", "α", "⊙", "‖x‖2⊗|y|", "E:v", "+1", "#hash@at",
                  "classA:", "$5a.circle", "Table1.Acaption.", "Alead-in",
                  "Codeofapart,set_up:page3"):
        assert shown in "".join(text.split())
    assert text.count("plt.circle(") == 2
    assert text.count("def apart") == 1
    assert text.count("long()") == 240  # not cut off at the foot of a page
    assert "hidden" not in text


def test_a_formula_stays_with_its_sentence(tmp_path):
    pages = pages_of(tmp_path, v4.new_markdown_cell(
        "# T\n\n" + "More.\n\nHere is\n\n$$x=1$$\n\n" * 120))
    assert len(pages) > 3
    assert [p.count("Here is") for p in pages] == [
        p.count("= 1") for p in pages]


def test_paragraphs_are_not_torn_but_long_ones_are_whole(tmp_path):
    pages = pages_of(tmp_path, v4.new_markdown_cell(
        "# T\n\n1\n\n" + "\n\n".join(
            f"Begin{i} {'word ' * n}end{i}."
            for i, n in enumerate([120] * 60 + [3000]))))
    begun, ended = ([re.findall(mark + r"(\d+)", page) for page in pages]
                    for mark in ("Begin", "end"))
    assert begun[:5] == ended[:5] and begun[4]
    assert ["60"] in ended


@pytest.mark.parametrize("module, package", [
    ("typst", "typst"), ("pypandoc", "pypandoc_binary")])
def test_what_is_missing_is_named(module, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec",
                        lambda name: None if name == module else name)
    with pytest.raises(SystemExit, match=f"pip install {package}"):
        exec(CONFIG.read_text(encoding="utf-8"), {"__file__": str(CONFIG)})
