"""PDF export: ``jupyter nbconvert --config .nbconvert/config.py NOTEBOOK``."""

import re
import sys
from pathlib import Path

# A paragraph that starts with one of these in bold gets a form of its own.
LABELLED = re.compile(
    r"(?:\A|(?<=\n\n))\\textbf\{(Figure|Table|Abstract)(?:[ ~]\d|\.).*?"
    r"(?=\n\n|\Z)",
    re.DOTALL,
)
# Only tables whose columns have natural widths; others stay as they are.
TABLE = re.compile(
    r"\\begin\{longtable\}\[\]\{@\{\}([lrc]+)@\{\}\}(.*?)\\end\{longtable\}",
    re.DOTALL,
)
# Symbols that a text font may lack, outside of what must be left verbatim.
SYMBOL = re.compile(
    r"\\begin\{(verbatim|Highlighting)\}.*?\\end\{\1\}"
    r"|\\(?:label|hypertarget|url|href)\{[^}]*\}|\\hyperref\[[^]]*\]"
    r"|[\u0370-\u03ff\u2070-\U0010ffff]",
    re.DOTALL,
)
# A blank line before a display would set an empty one above it.
DISPLAY = re.compile(r"\n\n(?=\\\[|\\begin\{(?:align|equation|gather))")
MAX_ROWS = 40  # a longer table may break across pages
LINE_CHARS = 105  # of \small text in one line
TEXT_CHARS = 24  # a left-aligned column with longer cells may wrap


def split_cells(row):
    """Return the cells of one row of a LaTeX table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)&", row)]


def printed_length(cell):
    """Return roughly how many characters of a LaTeX cell are printed."""
    return len(re.sub(r"\\[a-zA-Z]+|[{}$\\]", "", cell))


def stackable(cell):
    """Let the words of a head cell stand one above the other."""
    return cell.replace(" ", "\\nbspace{}")


def set_table(match):
    """Turn pandoc's longtable into a box that stays whole and fits the line.

    Pandoc up to 3.0 ends the table with \\bottomrule, later ones put it
    before the body; both come down to a specification, a head and rows.
    """
    spec, body = match[1], match[2].replace("\\noalign{}", "")
    head, midrule, rest = body.partition("\\midrule")
    rows = [line for line in rest.splitlines() if line.endswith(r"\\")]
    cells = [split_cells(row[:-2]) for row in rows]
    head = split_cells(head.replace("\\toprule", "").strip()[:-2])
    regular = all(len(row) == len(spec) for row in [head, *cells])
    if not midrule or not regular or not 0 < len(rows) <= MAX_ROWS:
        return match[0]
    widths = [max(map(printed_length, column)) for column in zip(*cells)]
    text = [
        align == "l" and width > TEXT_CHARS
        for align, width in zip(spec, widths, strict=True)
    ]
    command = "\\nbtable"
    if any(text) and sum(widths) + 2 * len(widths) > LINE_CHARS:
        # Text columns share the line by the square root of their lengths.
        shares = [w**0.5 * is_text for w, is_text in zip(widths, text)]
        unit = sum(shares) / sum(text)
        spec = "".join(
            f">{{\\nbtext{{{share / unit:.3f}}}}}X" if share else align
            for align, share in zip(spec, shares, strict=True)
        )
        command = "\\nbtexttable"
    else:
        # Plain words in the head may be stacked where the table is too wide.
        head = [
            f"\\nbhead{{{align}}}{{{stackable(cell)}}}"
            if re.fullmatch(r"[\w ()]+", cell)
            else cell
            for align, cell in zip(spec, head, strict=True)
        ]
    rows = "\n".join(rows)
    return f"{command}{{@{{}}{spec}@{{}}}}{{{' & '.join(head)}}}{{{rows}}}"


def set_blocks(latex):
    """Dress the LaTeX that pandoc made of Markdown for the report."""
    latex = LABELLED.sub(lambda m: f"\\nb{m[1].lower()}label{{{m[0]}}}", latex)
    latex = DISPLAY.sub("\n", TABLE.sub(set_table, latex))
    return SYMBOL.sub(
        lambda m: m[0] if m[0][0] == "\\" else f"\\nbsymbol{{{m[0]}}}", latex
    )


c = get_config()  # noqa: F821 (nbconvert provides it)
c.NbConvertApp.export_format = "pdf"
c.TemplateExporter.extra_template_basedirs = [
    str(Path(__file__).resolve().parent)
]
c.TemplateExporter.template_name = "report"
c.TemplateExporter.filters = {"set_blocks": set_blocks}
# A PDF figure is sharper than its PNG twin; Markdown beats HTML and text.
c.NbConvertBase.display_data_priority = [
    "text/latex",
    "application/pdf",
    "image/png",
    "image/jpeg",
    "text/markdown",
    "text/html",
    "text/plain",
]
# There is no bibliography: nothing runs in the place of bibtex, which would
# warn; LaTeX runs this often before it and after it.
c.PDFExporter.bib_command = [sys.executable, "-c", ""]
c.PDFExporter.latex_count = 2
c.CoalesceStreamsPreprocessor.enabled = True  # one box for a cell's prints
c.TagRemovePreprocessor.enabled = True
c.TagRemovePreprocessor.remove_cell_tags = {"remove-pdf"}
c.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
