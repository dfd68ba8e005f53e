"""What a notebook and its PDF must be before they are handed in.

Each function returns a list of problems, empty if there are none. A path in
a problem or in the notebook means one of the machine that ran it.
"""

import hashlib
import json
import re
import sys
import unicodedata
from pathlib import Path

import nbformat
from pypdf import PdfReader
from pypdf.errors import PyPdfError
from pypdf.generic import NameObject

from definitions import tagged

MAX_BYTES = 3_000_000
MAX_PAGES = 24              # before the appendix
MAX_FOOT = 0.3              # white, margin included, of all but the last one
APPENDIX = "Appendix: every code cell"

PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|mnt|var|work|content"
                  r"|private|Users)/|\b[A-Z]:\\\\?\w")
UNWANTED = {
    "a path": PATH,
    "a warning": re.compile(r"Warning:|\[\w+\] WARNING"),
    "a progress bar": re.compile(r"\r|\x1b\[|\d%\||\bit/s\b|s so far, about")}
CAPTION = re.compile(r"^\*\*(Figure|Table) (\d+)\.\*\*(.*)$", re.MULTILINE)


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


def name_of(cell):
    return f"the cell that begins {cell.source.partition(chr(10))[0][:40]!r}"


def squeeze(text):
    """Keep what survives typesetting: letters, digits and points."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(c for c in text if c.isalnum() or c == ".")


def read_page(page):
    """Return a page's text and how high its last line stands, as a share."""
    for figure in page["/Resources"].get("/XObject", {}).values():
        # Its text has coordinates of its own; that of images is left out.
        figure.get_object()[NameObject("/Subtype")] = NameObject("/Image")
    heights = [1.0]

    def note(text, cm, tm, *_):
        if text.strip():
            heights.append((tm[4] * cm[1] + tm[5] * cm[3] + cm[5])
                           / page.mediabox.height)

    return squeeze(page.extract_text(visitor_text=note)), min(heights)


def pdf_problems(path, notebook):
    """Check that a PDF is a report of the run that a notebook shows."""
    try:
        reader = PdfReader(path)
        pages, feet = zip(*map(read_page, reader.pages))
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
    body, appendix = "".join(pages), "".join(pages[end:])
    helpers = Path(path).with_name("helpers.py")
    return those(
        (end > MAX_PAGES, f"the PDF has {end} pages before the appendix, more "
         f"than {MAX_PAGES}"),
        *((foot > MAX_FOOT, f"the lowest {foot:.0%} of page {number} of the "
           "PDF are white")
          for number, foot in enumerate(feet[:end - 1], start=1)),
        (squeeze(meta.get("/Title", "")) != squeeze(title),
         f"the PDF's metadata lacks the title {title!r}"),
        (not meta.get("/Author"), "the PDF's metadata lacks the author"),
        *((squeeze(text) not in pages[0], f"page 1 of the PDF lacks {what}")
          for what, text in first.items()),
        *((squeeze(f"{kind} {number}. {text}") not in body,
           f"the PDF lacks the caption of {kind} {number}")
          for kind, number, text in captions(notebook)),
        *((squeeze(heading) not in bookmarks,
           f"the PDF has no bookmark {heading!r}")
          for heading in [*headings(notebook), APPENDIX]),
        *((squeeze(line) not in appendix,
           f"the PDF's appendix lacks a line of {name_of(cell)}: {line!r}")
          for cell in code_cells(notebook)
          for line in cell.source.splitlines()),
        (helpers.is_file() and hashlib.md5(helpers.read_bytes()).hexdigest()
         not in appendix,
         "the PDF's appendix lacks the MD5 sum of helpers.py"))


def main():
    """Print the problems of an executed notebook and of the PDF beside it."""
    path = Path(sys.argv[1])
    problems = run_problems(read(path)) + pdf_problems(
        path.with_suffix(".pdf"), read(path))
    print(*problems or [f"{path} and its PDF: no problems."], sep="\n")
    return len(problems)


if __name__ == "__main__":
    sys.exit(main())
