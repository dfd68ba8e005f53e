"""Notebook to PDF: by the template to Markdown, by pandoc to Typst."""

import hashlib
import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pypandoc
import typst
from nbconvert.exporters import TemplateExporter
from nbconvert.filters import strip_ansi, wrap_text
from PIL import Image

STYLE = Path(__file__).resolve().parent / "report" / "report.typ"
# That of these is taken which needs the fewest pages, and leaves least white.
LEADINGS = "0.52em", "0.5em", "0.49em", "0.48em", "0.47em"
# Of one output, the first of these is shown.
KINDS = ("application/pdf", "image/png", "image/jpeg", "text/markdown",
         "text/latex", "text/plain")
FENCE = r"^```.*?^```$"
BLOCK = re.compile(
    r"(?sm)(?P<picture>^```\{=typst\}\n#picture[^\n]*\n```\s+)?"
    r"^\*\*(?P<kind>Figure|Table|Abstract)(?: (?P<number>\d+))?\."
    r"(?:(?!\n\s*\n).)*(?P<rows>\s*?(?:\n\|[^\n]*)+)?|" + FENCE
    + r"|^##+ (?P<section>\d+(?:\.\d+)*)[^\n]*")
REFERENCE = re.compile(
    r"(?sm)" + FENCE + r"|`[^`]+`|\*\*(?:Figure|Table) \d+\."
    r"|\b(?P<kind>Figure|Table|Section)\s+(?P<number>\d+(?:\.\d+)?)")
# A paragraph, no heading, table, list, display or caption, and the code that
# follows it, or a formula.
LEAD_IN = re.compile(
    r"(?s)(?<=\n\n)(?!\s|#|\||>|[-*+] |\d+\. |\$\$|\*\*(?:Table|Figure))"
    r"((?:(?!\n\n|```).)+)\n\n"
    r"(?:\s*```\{=typst\}\n#code(\([^\n]*\))\n```|(?=\$\$))")
# In pandoc's Typst code is left alone; formulas are repaired, and cells of
# tables that begin with a sign, which Typst would take for lists.
TOKEN = re.compile(r"(?ms)^#(?!link)\w+\(\"[^\n]*|`[^`]+`|\\."
                   r"|(?P<math>\$(?:\\.|[^$\\])+\$)|(?P<cell>\[(?=[-+=/] ))")
# Symbols with another name, operators, sizes of delimiters, norms, absolute
# values.
REPAIRS = {r"\b(\w+)\.circle\b": r"\1.o",
           r'("\w+") (?=\w)': r"op(\1) ",
           r"#scale\(x: (\d+%), y: \1\)\[(.+?)\]": r"stretch(\2, size: #\1)",
           r"\bparallel (.+?) parallel(?=\W|_)": r"lr(‖ \1 ‖)",
           r"\\\| (.+?) \\\|": r"lr(| \1 |)"}


def typst_block(code, *texts):
    """Return Typst, a call if there are texts, as a block of Markdown."""
    texts = [re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text) for text in texts]
    call = f"({json.dumps(texts, ensure_ascii=False)[1:-1]})" if texts else ""
    return f"\n\n```{{=typst}}\n{code}{call}\n```\n\n"


def wrap(function, markdown, label=""):
    """Return Markdown as the content that a Typst function is given."""
    return (typst_block(f"#{function}[") + markdown
            + typst_block(f"] <{label}>" if label else "]"))


def dress(markdown):
    """Mark captions and the abstract, and link references to their goals."""
    labels = set()

    def mark(match):
        kind, number = match["kind"], match["number"] or match["section"]
        label = number and f"{kind or 'Section'}-{number}".lower()
        labels.add(label)
        if match["section"]:
            return f"{match[0]} {{#{label}}}"
        if not kind:
            return match[0]
        picture, rows = match["picture"] or "", match["rows"] or ""
        text = match[0].removeprefix(picture).removesuffix(rows)
        if kind == "Abstract":
            return wrap("abstract", text)
        return wrap(f'float("{kind}")', wrap("caption", text, label)
                    + typst_block("][") + picture + rows)

    def link(match):
        label = f"{match['kind']}-{match['number']}".lower()
        text = f"{match['kind']}\u00a0{match['number']}"  # on one line
        return f"[{text}](#{label})" if label in labels else match[0]

    return REFERENCE.sub(link, BLOCK.sub(mark, LEAD_IN.sub(
        lambda m: wrap(f"lead{m[2]}" if m[2] else "keep", m[1]), markdown)))


def repair(token):
    """Return a token of pandoc's Typst as Typst sets it right."""
    text = token[0] + "\\" * bool(token["cell"])
    for pattern, better in REPAIRS.items() if token["math"] else ():
        text = re.sub(pattern, better, text)
    return text


def white(page):
    """Return the largest white strip of a page, as a share of its height."""
    ink = np.asarray(Image.open(BytesIO(page)).convert("L")) < 200
    foot = int(0.96 * len(ink))  # where its margin begins
    rows = np.flatnonzero(ink[:foot].any(axis=1))
    return np.diff(rows, append=foot).max() / len(ink)


def fill_pages(main):
    """Return the PDF, with that leading of the text that fills pages best."""
    tried = {}
    for leading in LEADINGS:
        # Typst's own fonts alone, so that all machines set the same pages.
        typesetter = typst.Compiler(main, main.parent, sys_inputs={
            "leading": leading}, ignore_system_fonts=True)
        pages = typesetter.compile(format="png", ppi=20)
        (end,) = json.loads(typesetter.query("<end>", "value"))
        worst = max(map(white, pages[:end - 1]), default=0)
        tried[end, worst] = typesetter
    return tried[min(tried)].compile()


class TypstPDF(TemplateExporter):
    """Export a notebook by pandoc and Typst, which pip installs."""

    output_mimetype = "application/pdf"

    def default_filters(self):
        yield from super().default_filters()
        yield from dict(typst=typst_block, shown=self.shown).items()

    def shown(self, outputs):
        """Yield the outputs of a cell as Markdown; collect their images."""
        for output, after in zip(outputs, [*outputs[1:], {}]):
            data = output.get("data") or {"text/plain": output.get(
                "text", "\n".join(output.get("traceback", [])))}
            kind = next((kind for kind in KINDS if kind in data), "")
            if kind == "text/plain":
                yield typst_block(
                    "#printed", wrap_text(strip_ansi(data[kind]), 100))
            elif kind.startswith("text"):
                yield f"\n\n{data[kind]}\n\n"
            elif kind:
                name = f"{len(self.images)}.{kind.rpartition('/')[2]}"
                self.images[name] = b64decode(data[kind])
                caption = after.get("data", {}).get("text/markdown", "Figure")
                yield typst_block(
                    "#picture", name, re.sub(r"[*`$\\]", "", caption))

    def from_notebook_node(self, nb, resources=None, **kw):
        """Return the PDF as bytes, and the resources."""
        self.images, resources = {}, self._init_resources(resources)
        folder = Path(resources["metadata"].get("path") or ".").resolve()
        if (folder / "helpers.py").is_file():
            resources["helpers_md5"] = hashlib.md5(
                (folder / "helpers.py").read_bytes()).hexdigest()
        markdown, resources = super().from_notebook_node(nb, resources, **kw)
        with TemporaryDirectory() as root:
            for name, data in self.images.items():
                Path(root, name).write_bytes(data)
            source = pypandoc.convert_text(
                dress(markdown), "typst",
                "markdown-citations-implicit_figures", cworkdir=root,
                extra_args=["--columns=9999", "--fail-if-warnings",
                            "--shift-heading-level-by=-1",
                            "--extract-media=.", f"--resource-path={folder}"])
            main = Path(root, "main.typ")
            main.write_text(STYLE.read_text("utf-8")
                            + TOKEN.sub(repair, source), "utf-8")
            return fill_pages(main), resources
