"""Pack the assignment: PA1_<Roll>.zip with notebook, PDF and helpers.

    python tests/hand_in.py ROLLNUMBER [--folder .]

Refuses, and says why, unless the notebook is one clean run and the PDF is a
report of that run. On Colab, in a cell of its own, %run takes the notebook
from the browser, makes the PDF, and offers the zip for download.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import nbformat
from IPython import get_ipython

import checks
from definitions import ROOT, tagged

OTHERS = ("helpers.py", "requirements.txt", "README.md")


def hand_in(roll, folder):
    """Write the zip, all or nothing; return its path, or raise ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", roll):
        raise ValueError("the roll number may have letters, digits, - and _ "
                         f"only, and at least one of them: {roll!r}")
    folder = Path(folder)
    members = {f"PA1_{roll}{suffix}": folder / f"PA1_RollNumber{suffix}"
               for suffix in (".ipynb", ".pdf")}
    members |= {name: folder / name for name in OTHERS}
    reasons = [f"{path} is missing" for path in members.values()
               if not path.is_file()]
    if not reasons:
        notebook = checks.read(folder / "PA1_RollNumber.ipynb")
        reasons = (checks.run_problems(notebook)
                   + checks.origin_problems(notebook)
                   or checks.pdf_problems(folder / "PA1_RollNumber.pdf",
                                          notebook))
    if reasons:
        raise ValueError("\n".join(reasons))
    target = folder / f"PA1_{roll}.zip"
    unfinished = target.with_suffix(".part")
    with ZipFile(unfinished, "w", ZIP_DEFLATED) as archive:
        for name, path in members.items():
            archive.write(path, name)
    os.replace(unfinished, target)
    return target


def export(path):
    """Make the PDF of a notebook beside it; return its path."""
    made = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--config",
         ROOT / ".nbconvert/config.py", path], capture_output=True,
        encoding="utf-8", errors="replace")
    if made.returncode:
        raise ValueError(f"The PDF can't be made:\n{made.stderr[-2000:]}")
    return path.with_suffix(".pdf")


def fetch_from_colab(folder):
    """Write the notebook that the browser shows, and its PDF."""
    from google.colab import _message

    answer = _message.blocking_request("get_ipynb", timeout_sec=120)
    notebook = nbformat.reads(json.dumps(answer["ipynb"]), 4)
    notebook.cells = [cell for cell in notebook.cells
                      if "run tests/hand_in.py" not in cell.source]
    for cell in notebook.cells:         # who ran it, on which account
        cell.metadata.pop("executionInfo", None)
        if "files.upload()" in cell.source:     # its form, a file's name
            cell.outputs = []
    # A page that was loaded again during the run has lost these updates.
    front = get_ipython().user_ns.get("front", {})
    for cell in tagged(notebook, "headline"):
        for output, text in zip(cell.outputs, front.values()):
            output.data["text/markdown"] = text
    path = Path(folder, "PA1_RollNumber.ipynb")
    nbformat.write(notebook, path)
    export(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("roll", help="your roll number")
    parser.add_argument("--folder", default=".",
                        help="where PA1_RollNumber.ipynb lies (.)")
    options = parser.parse_args()
    colab = sys.modules.get("google.colab")
    try:
        if colab:
            fetch_from_colab(options.folder)
        target = hand_in(options.roll, options.folder)
    except (OSError, ValueError) as error:
        print(f"Not packed:\n{error}", file=sys.stderr)
        return 1
    with ZipFile(target) as archive:
        if b"Name Surname" in archive.read(f"PA1_{options.roll}.ipynb"):
            print("Note: the notebook still says 'Name Surname'.")
    print(f"{target}: hand this in.")
    if colab:
        colab.files.download(str(target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
