"""What a notebook and its PDF must be before they are handed in.

Each function returns a list of problems, empty if there are none. A path in
a problem or in the notebook means one of the machine that ran it.
"""

import ast
import hashlib
import json
import re
import symtable
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import nbformat
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from definitions import tagged

MAX_BYTES = 3_000_000
MAX_PAGES = 30              # before the appendix
APPENDIX = "Appendix: every code cell"
MAX_LINES = 40              # of a code cell; its columns are ruff's concern
MAX_HIDDEN_LINES = 20       # of a hidden one
MAX_ALL_HIDDEN_LINES, MAX_ALL_LINES = 670, 1260
MAX_AGAIN = 5               # names that several cells bind
MAX_BARE = 0.3              # share of visible cells without text before

PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|mnt|var|work|content"
                  r"|private|Users)/|\b[A-Z]:\\\\?\w")
UNWANTED = {
    "a path": PATH,
    "a warning": re.compile(r"\w*Warning:|\[\w+\] WARNING"),
    "a progress bar": re.compile(r"\r|\x1b\[|\d%\||\bit/s\b|s so far, about")}
CAPTION = re.compile(r"^\*\*(Figure|Table) (\d+)\.\*\*(.*)$", re.MULTILINE)
REFERENCE = re.compile(r"\b(Figure|Table|Section)s?\s+(\d+(?:\.\d+)?)")

# Headings that answer the handout, in the order of the house style.
SECTIONS = ("handout", "setup", "data", "network from scratch", "gradients",
            "code", "proof", "activations", "sigmoid", "tanh", "relu",
            "which activation", "pytorch and adam", "comparison",
            "l2 regularization", "experiments", "conclusions", "references")


def read(path):
    """Return a notebook, of version 4."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown_texts(notebook):
    """Return prose and Markdown outputs, in order."""
    return [text for cell in notebook["cells"] for text in (
        [cell.source] if cell.cell_type == "markdown" else
        [output.data["text/markdown"] for output in cell.get("outputs", [])
         if "text/markdown" in output.get("data", {})])]


def captions(notebook):
    """Return (kind, number, text) of every caption, in order."""
    return [(kind, int(number), text.strip()) for shown in
            shown_texts(notebook) for kind, number, text in
            CAPTION.findall(shown)]


def headings(notebook):
    """Return the text of each heading below the title, in order."""
    return [line.lstrip("# ") for cell in notebook.cells
            if cell.cell_type == "markdown"
            for line in cell.source.splitlines() if re.match("##+ ", line)]


def front(notebook, start):
    """Return what the cell tagged `headline` shows and starts so, or ""."""
    texts = shown_texts({"cells": tagged(notebook, "headline")})
    return next((text for text in texts if text.startswith(start)), "")


def abstract(notebook):
    return front(notebook, "**Abstract.")


def headline(notebook):
    """Return caption and rows of the headline table; "", [] without one."""
    caption, _, table = front(notebook, "**Table 1.").partition("\n")
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")]
                      for line in table.splitlines() if line] or [0, 0]
    return caption, [dict(zip(head, row)) for row in rows]


def those(*cases):
    """Return the texts of those cases (wrong, text) that are wrong."""
    return [text for wrong, text in cases if wrong]


def run_problems(notebook):
    """Check that the outputs come from one clean run, top to bottom."""
    counts = [cell.execution_count for cell in code_cells(notebook)
              if cell.source.strip()]
    if not any(counts):
        return ["the notebook has not been executed"]
    return those(
        (counts != list(range(1, len(counts) + 1)), "the cells were not run "
         f"once each, from top to bottom: execution counts {counts}"),
        (not headline(notebook)[1], "the cell tagged 'headline' shows no "
         "table: the notebook was not run to its end"),
        (not abstract(notebook), "that cell shows no abstract"),
        ("widgets" in notebook.metadata, "it holds the state of widgets"),
    ) + [f"{name_of(cell)}: {what}" for cell in code_cells(notebook)
         for output in cell.outputs for what in output_problems(output)]


def output_problems(output):
    """Return what is wrong with one output of a cell."""
    data = output.get("data", {})
    texts = [output.get("text", "")] + [
        data[kind] for kind in data if kind.startswith("text/")]
    return those(
        (output.output_type == "error",
         f"error {output.get('ename')}: {output.get('evalue')}"),
        (output.get("name") == "stderr", f"standard error: {texts[0][:60]!r}"),
        (any("widget" in kind for kind in data), "a widget"),
    ) + [f"{what} in the output: "
         f"{text[max(0, found.start() - 20):][:60]!r}"
         for text in texts for what, pattern in UNWANTED.items()
         if (found := pattern.search(text))]


def origin_problems(notebook):
    """Check that a file to be handed in is small and a run of its own."""
    size = len(nbformat.writes(notebook).encode())
    metadata = json.dumps([notebook.metadata] + [c.metadata
                                                 for c in notebook.cells])
    path = PATH.search(metadata)
    person = re.search(r'"(displayName|userId|photoUrl)": "[^"]+"', metadata)
    return those(
        (size > MAX_BYTES, f"the file has {size / 1e6:.2f} MB, more than "
         f"{MAX_BYTES / 1e6:.0f}"),
        (tagged(notebook, "injected-parameters"),
         "it was run with other parameters than its own"),
        (path, f"a path in the metadata: {path and path[0]}"),
        (person, f"who ran it, as Colab notes it: {person and person[0]}"))


def num_lines(*cells):
    return sum(len(cell.source.splitlines()) for cell in cells)


def name_of(cell):
    return f"the cell that begins {cell.source.partition(chr(10))[0][:40]!r}"


def layout_problems(notebook):
    """Check code cells, definitions, and the metadata that Colab reads."""
    metadata = notebook.metadata
    return those(
        *((num_lines(cell) > MAX_LINES,
           f"{name_of(cell)} has {num_lines(cell)} lines")
          for cell in code_cells(notebook)),
        *((not defines(node), f"definitions: line {node.lineno} does more "
           f"than define: {ast.unparse(node)[:40]!r}")
          for cell in tagged(notebook, "definitions")
          for node in ast.parse(cell.source).body),
        (metadata.get("accelerator") != "GPU",
         "the metadata ask Colab for no GPU"),
        (not metadata.get("colab", {}).get("toc_visible"),
         "the metadata ask Colab for no table of contents"))


def defines(node):
    """Say whether a statement imports, defines or sets a CONSTANT."""
    if isinstance(node, ast.Assign):
        return (all(ast.unparse(name).isupper() for name in node.targets)
                and not any(calls(node.value)))
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


def hidden_problems(notebook):
    """Check that what is folded away is marked, short and not needed."""
    cells = code_cells(notebook)
    hidden = [cell for cell in cells if any(hiding_marks(cell).values())]
    visible = [cell for cell in cells if cell not in hidden]
    unseen = set().union(*map(bound, hidden)).difference(*map(bound, visible))
    times = Counter(name for cell in cells for name in bound(cell))
    again = sorted(name for name, count in times.items() if count > 1)
    bare = [cell for before, cell in zip(notebook.cells, notebook.cells[1:])
            if before.cell_type == "code" and cell in visible]
    return those(
        *((not has, f"{name_of(cell)} is half hidden, without {mark}")
          for cell in hidden for mark, has in hiding_marks(cell).items()),
        *((num_lines(cell) > MAX_HIDDEN_LINES,
           f"{name_of(cell)} hides {num_lines(cell)} lines")
          for cell in hidden),
        (num_lines(*hidden) > MAX_ALL_HIDDEN_LINES,
         f"hidden cells have {num_lines(*hidden)} lines"),
        (num_lines(*cells) > MAX_ALL_LINES,
         f"all code cells have {num_lines(*cells)} lines"),
        (len(again) > MAX_AGAIN, f"bound in several cells: {again}"),
        (len(bare) > max(1, MAX_BARE * len(visible)),
         f"{len(bare)} visible cells follow code without a word"),
        *((used(cell) & unseen, f"{name_of(cell)} needs what only hidden "
           f"cells bind: {sorted(used(cell) & unseen)}") for cell in visible))


def hiding_marks(cell):
    """Return what marks a hidden cell, and whether this one has it."""
    data = cell.metadata
    folded = data.get("jupyter", {}).get("source_hidden")
    return {"hide-input": "hide-input" in data.get("tags", []),
            "source_hidden": folded is True,
            "cellView": data.get("cellView") == "form",
            "# @title": bool(re.match(r"# @title \S", cell.source))}


def bound(cell):
    """Return the names that a cell binds at module level, imports aside."""
    return {symbol.get_name() for symbol in
            symtable.symtable(cell.source, "cell", "exec").get_symbols()
            if symbol.is_assigned()}


def used(cell):
    """Return the names that a cell takes from module level."""
    def names(table):
        top = table.get_type() == "module"
        return {symbol.get_name() for symbol in table.get_symbols()
                if symbol.is_referenced() and (top or symbol.is_global())
                }.union(*map(names, table.get_children()))

    return names(symtable.symtable(cell.source, "cell", "exec"))


def numbering_problems(notebook):
    """Check captions, their order, and the places that refer to them."""
    found = captions(notebook)
    numbers = {kind: [n for k, n, _ in found if k == kind]
               for kind in ("Figure", "Table")}
    exist = {f"{kind} {number}" for kind, number, _ in found}
    exist |= {f"Section {heading.split()[0].rstrip('.')}"
              for heading in headings(notebook)}
    return those(
        *((own != list(range(1, len(own) + 1)),
           f"{kind} captions are numbered {own}")
          for kind, own in numbers.items()),
        (not found or found[0][:2] != ("Table", 1),
         "the headline table is not Table 1, at the top"),
        *((f"{kind} {number}" not in exist,
           f"there is no {kind} {number}: {text.strip()[:60]!r}")
          for text in shown_texts(notebook) for kind, number in REFERENCE.
          findall(CAPTION.sub(r"\3", text))))


def section_problems(notebook):
    """Check that the sections answer the handout, in order."""
    title, rest = notebook.cells[0], headings(notebook)
    first = title.cell_type, title.source[:2]
    problems = those((first != ("markdown", "# "),
                      "the first cell is not the title"))
    for wanted in SECTIONS:
        at = [i for i, text in enumerate(rest) if wanted in text.lower()]
        problems += those((not at, f"no heading with {wanted!r}, or out of "
                           "order"))
        rest = rest[min(at, default=0):]
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
        meta, bookmarks = reader.metadata or {}, squeeze(str(reader.outline))
        end = next((reader.get_destination_page_number(item)
                    for item in reader.outline if not isinstance(item, list)
                    and item.title == APPENDIX), len(pages))
    except (OSError, PyPdfError) as error:
        return [f"can't read {Path(path).name}: {error}"]
    title = notebook.cells[0].source.partition("\n")[0].lstrip("# ")
    first = {"the title": title, "the abstract": abstract(notebook)} | {
        "this row of the headline table: " + " ".join(row.values()):
        "".join(row.values()) for row in headline(notebook)[1]}
    return those(
        (end > MAX_PAGES, f"the PDF has {end} pages before the appendix, more "
         f"than {MAX_PAGES}"),
        (squeeze(meta.get("/Title", "")) != squeeze(title),
         f"the PDF's metadata lacks the title {title!r}"),
        (not meta.get("/Author"), "the PDF's metadata lacks the author"),
        *((squeeze(text) not in pages[0], f"page 1 of the PDF lacks {what}")
          for what, text in first.items()),
        *((squeeze(f"{kind} {number}. {text}") not in "".join(pages),
           f"the PDF lacks the caption of {kind} {number}")
          for kind, number, text in captions(notebook)),
        *((squeeze(heading) not in bookmarks,
           f"the PDF has no bookmark {heading!r}")
          for heading in [*headings(notebook), APPENDIX]),
    ) + appendix_problems("".join(pages[end:]), path, notebook)


def appendix_problems(text, path, notebook):
    """Check the squeezed text of the appendix: all code, which helpers.py."""
    helpers = Path(path).with_name("helpers.py")
    return those(
        *((any(squeeze(line) not in text for line in cell.source.splitlines()),
           f"the PDF's appendix lacks a line of {name_of(cell)}")
          for cell in code_cells(notebook)),
        (helpers.is_file() and hashlib.md5(helpers.read_bytes()).hexdigest()
         not in text, "the PDF's appendix lacks the MD5 sum of helpers.py"))


def main():
    """Print the problems of an executed notebook and of the PDF beside it."""
    path = Path(sys.argv[1])
    problems = run_problems(read(path)) + pdf_problems(
        path.with_suffix(".pdf"), read(path))
    print(*problems or [f"{path} and its PDF: no problems."], sep="\n")
    return len(problems)


if __name__ == "__main__":
    sys.exit(main())
