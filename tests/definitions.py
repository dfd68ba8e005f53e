"""The notebook's own definitions, as a module."""

import linecache
import sys
import types
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "PA1_RollNumber.ipynb"
sys.path.insert(0, str(ROOT))       # helpers.py, from any folder
if hasattr(sys.stdout, "reconfigure"):      # a console may lack α and ±
    sys.stdout.reconfigure(errors="replace")


def tagged(notebook, tag):
    """Return the code cells of a notebook that bear a tag, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"
            and tag in cell.metadata.get("tags", [])]


def load_definitions():
    """Execute the cells tagged `definitions`; return what they define.

    The module is not entered in sys.modules, so that cloudpickle sends its
    functions to worker processes by value.
    """
    cells = tagged(nbformat.read(NOTEBOOK, as_version=4), "definitions")
    module = types.ModuleType("PA1_definitions")
    for number, cell in enumerate(cells, start=1):
        name = f"<definitions {number}>"
        linecache.cache[name] = (len(cell.source), None,
                                 cell.source.splitlines(True), name)
        exec(compile(cell.source, name, "exec"), module.__dict__)
    return module
