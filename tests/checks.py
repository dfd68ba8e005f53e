"""What a notebook and its PDF must be before they are handed in.

Each function returns a list of problems, empty if there are none. A path in
a problem or in the notebook means one of the machine that ran it.
"""

import ast
import json
import re
import unicodedata
from pathlib import Path

import nbformat
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from definitions import tagged

MAX_BYTES = 2_000_000
MAX_LINES, MAX_COLUMNS = 40, 79
MAX_PAGES = 30

PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|mnt|var|work|content"
                  r"|private|Users)/|\b[A-Z]:\\\\?\w")
PROGRESS = re.compile(r"\r|\x1b\[|\d%\||\bit/s\b|s so far, about")
WARNING = re.compile(r"\w*Warning:|\[\w+\] WARNING")
CAPTION = re.compile(r"^\*\*(Figure|Table) (\d+)\.\*\*(.*)$", re.MULTILINE)

# Headings that answer the handout, in the order of the house style.
SECTIONS = ("handout", "setup", "data", "network from scratch", "gradients",
            "code", "proof", "activations", "sigmoid", "tanh", "relu",
            "which activation", "pytorch and adam", "comparison",
            "l2 regularization", "experiments", "conclusions", "references")


def read(path):
    """Return a notebook, of version 4."""
    return nbformat.read(path, as_version=4)


def output_texts(cell):
    """Return all texts that a code cell shows."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type != "error":
            texts += [text for kind, text in output.data.items()
                      if kind.startswith("text/")]
    return texts


def shown_texts(notebook):
    """Return what a reader sees as text, in order: prose and Markdown."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        elif cell.cell_type == "code":
            texts += [output.data["text/markdown"] for output in cell.outputs
                      if "text/markdown" in output.get("data", {})]
    return texts


def captions(notebook):
    """Return (kind, number, text) of every caption, in order."""
    return [(kind, int(number), text.strip()) for shown in
            shown_texts(notebook) for kind, number, text in
            CAPTION.findall(shown)]


def headings(notebook):
    """Return the text of each heading below the title, in order."""
    return [line.lstrip("# ") for cell in notebook.cells
            if cell.cell_type == "markdown"
            for line in cell.source.splitlines()
            if re.match("##+ ", line)]


def headline(notebook):
    """Return the caption and the rows of the headline table.

    Raises
    ------
    ValueError
        If the cell tagged `headline` shows no table.
    """
    shown = [text for cell in tagged(notebook, "headline")
             for text in shown_texts(nbformat.v4.new_notebook(cells=[cell]))]
    for text in shown:
        lines = [line for line in text.splitlines() if line.startswith("|")]
        if len(lines) > 2:
            keys, _, *rows = ([cell.strip() for cell in
                               line.strip("|").split("|")] for line in lines)
            return (text.partition("\n")[0],
                    [dict(zip(keys, row, strict=True)) for row in rows])
    raise ValueError("the cell tagged 'headline' shows no table: the notebook "
                     "was not run to its end")


def abstract(notebook):
    """Return the abstract that the run wrote, or "" without one."""
    for cell in tagged(notebook, "headline"):
        for text in shown_texts(nbformat.v4.new_notebook(cells=[cell])):
            if text.startswith("**Abstract."):
                return text
    return ""


def run_problems(notebook):
    """Check that the outputs come from one clean run, top to bottom."""
    cells = [cell for cell in notebook.cells
             if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in cells]
    if not any(counts):
        return ["the notebook has not been executed"]
    problems = []
    if counts != list(range(1, len(cells) + 1)):
        problems.append("the cells were not run once each, from top to "
                        f"bottom: execution counts {counts}")
    for count, cell in enumerate(cells, start=1):
        problems += [f"cell {count}: {what}" for what in cell_problems(cell)]
    try:
        headline(notebook)
    except ValueError as error:
        problems.append(str(error))
    if not abstract(notebook):
        problems.append("the cell tagged 'headline' shows no abstract")
    if "widgets" in notebook.metadata:
        problems.append("the notebook holds the state of widgets")
    return problems


def cell_problems(cell):
    """Return what is wrong with the outputs of one cell."""
    problems = []
    for output in cell.outputs:
        if output.output_type == "error":
            problems.append(f"error {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            problems.append(f"standard error: {output.text[:60]!r}")
        if any("widget" in kind for kind in output.get("data", {})):
            problems.append("a widget")
    for text in output_texts(cell):
        for what, pattern in (("a path", PATH), ("a warning", WARNING),
                              ("a progress bar", PROGRESS)):
            if found := pattern.search(text):
                around = text[max(0, found.start() - 20):found.end() + 20]
                problems.append(f"{what} in the output: {around!r}")
    return problems


def origin_problems(path):
    """Check that a file to be handed in is small and a run of its own."""
    notebook, size = read(path), Path(path).stat().st_size
    problems = []
    if size > MAX_BYTES:
        problems.append(f"the file has {size / 1e6:.2f} MB, more than "
                        f"{MAX_BYTES / 1e6:.0f}")
    if tagged(notebook, "injected-parameters"):
        problems.append("it was run with other parameters than its own")
    metadata = [notebook.metadata] + [c.metadata for c in notebook.cells]
    if found := PATH.search(json.dumps(metadata)):
        problems.append(f"a path in the metadata: {found[0]}")
    return problems


def layout_problems(notebook):
    """Check the size of code cells, and what definitions consist of."""
    problems = []
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    for cell in cells:
        lines = cell.source.splitlines() or [""]
        name = f"the cell that begins {lines[0][:40]!r}"
        if len(lines) > MAX_LINES:
            problems.append(f"{name} has {len(lines)} lines")
        problems += [f"{name}: {len(line)} columns in {line[:40]!r}"
                     for line in lines if len(line) > MAX_COLUMNS]
    for cell in tagged(notebook, "definitions"):
        problems += [f"definitions: line {node.lineno} does more than "
                     f"define: {ast.unparse(node)[:40]!r}"
                     for node in ast.parse(cell.source).body
                     if not defines(node)]
        if cell.outputs:
            problems.append(f"definitions: {cell.source[:40]!r} has outputs")
    problems += [f"there is no cell tagged {tag!r}"
                 for tag in ("headline", "parameters", "definitions")
                 if not tagged(notebook, tag)]
    return problems


def defines(node):
    """Say whether a statement imports, defines or sets a CONSTANT."""
    if isinstance(node, ast.Assign):
        names = [target.id for target in node.targets
                 if isinstance(target, ast.Name)]
        constant = len(names) == len(node.targets) and all(
            name.isupper() for name in names)
        return constant and not any(calls(node.value))
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef,
                             ast.ClassDef))


def calls(node):
    """Yield the calls that evaluating an expression makes, but for dict."""
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func) != "dict":
        yield node
    for child in ast.iter_child_nodes(node):
        yield from calls(child)


def numbering_problems(notebook):
    """Check captions, their order, and the places that refer to them."""
    problems, found = [], captions(notebook)
    for kind in ("Figure", "Table"):
        numbers = [n for k, n, _ in found if k == kind]
        if numbers != list(range(1, len(numbers) + 1)):
            problems.append(f"{kind} captions are numbered {numbers}")
    if not found or found[0][:2] != ("Table", 1):
        problems.append("the headline table is not Table 1, at the top")
    exist = {f"{kind} {number}" for kind, number, _ in found}
    exist |= {f"Section {heading.split()[0].rstrip('.')}"
              for heading in headings(notebook)}
    for text in shown_texts(notebook):
        for kind, number in re.findall(
                r"\b(Figure|Table|Section)s?\s+(\d+(?:\.\d+)?)",
                CAPTION.sub(r"\3", text)):
            if f"{kind} {number}" not in exist:
                problems.append(f"there is no {kind} {number}: "
                                f"{text.strip()[:60]!r}")
    return problems


def section_problems(notebook):
    """Check that the sections answer the handout, in order."""
    problems = []
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        problems.append("the first cell is not the title")
    rest = [heading.lower() for heading in headings(notebook)]
    for wanted in SECTIONS:
        at = [i for i, heading in enumerate(rest) if wanted in heading]
        if not at:
            problems.append(f"no heading with {wanted!r}, or out of order")
        else:
            rest = rest[at[0]:]
    return problems


def squeeze(text):
    """Keep what survives typesetting: letters, digits and points."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(c for c in text if c.isalnum() or c == ".")


def pdf_problems(path, notebook):
    """Check that a PDF is a report of the run that a notebook shows."""
    try:
        reader = PdfReader(path)
        pages = [squeeze(page.extract_text()) for page in reader.pages]
        meta, outline = reader.metadata or {}, list(titles(reader.outline))
    except (OSError, PyPdfError) as error:
        return [f"can't read {Path(path).name}: {error}"]
    problems = []
    if len(pages) > MAX_PAGES:
        problems.append(f"the PDF has {len(pages)} pages, more than "
                        f"{MAX_PAGES}")
    title = notebook.cells[0].source.partition("\n")[0].lstrip("# ")
    if squeeze(meta.get("/Title", "")) != squeeze(title):
        problems.append(f"the PDF's metadata lacks the title {title!r}")
    if not meta.get("/Author"):
        problems.append("the PDF's metadata lacks the author")
    try:
        rows = headline(notebook)[1]
    except ValueError as error:
        return problems + [str(error)]
    first = {"the title": title, "the abstract": abstract(notebook)} | {
        "this row of the headline table: " + " ".join(row.values()):
        "".join(row.values()) for row in rows}
    problems += [f"page 1 of the PDF lacks {what}" for what, text in
                 first.items() if squeeze(text) not in pages[0]]
    everything = "".join(pages)
    for kind, number, text in captions(notebook):
        if squeeze(f"{kind} {number}. {text}") not in everything:
            problems.append(f"the PDF lacks the caption of {kind} {number}")
    problems += [f"the PDF has no bookmark {heading!r}"
                 for heading in headings(notebook)
                 if squeeze(heading) not in outline]
    return problems


def titles(outline):
    """Yield the titles of a PDF's bookmarks, squeezed, at every depth."""
    for item in outline:
        if isinstance(item, list):
            yield from titles(item)
        else:
            yield squeeze(item.title)
