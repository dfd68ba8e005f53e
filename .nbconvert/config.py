"""PDF export: ``jupyter nbconvert --config .nbconvert/config.py NOTEBOOK``."""

import sys
from importlib.util import find_spec
from pathlib import Path

folder = str(Path(__file__).resolve().parent)
if missing := [package for package, module in (
        ("pypandoc_binary", "pypandoc"), ("typst", "typst"))
        if not find_spec(module)]:
    sys.exit(f"The PDF needs {' and '.join(missing)}:\n"
             f"{sys.executable} -m pip install {' '.join(missing)}")
sys.path.insert(0, folder)

c = get_config()  # noqa: F821 (nbconvert provides it)
c.NbConvertApp.export_format = "typst_pdf.TypstPDF"
c.TypstPDF.file_extension = ".pdf"
c.TypstPDF.template_extension = ".md.j2"
c.TypstPDF.extra_template_basedirs = [folder]
c.TypstPDF.template_name = "report"
c.CoalesceStreamsPreprocessor.enabled = True  # one box for a cell's prints
