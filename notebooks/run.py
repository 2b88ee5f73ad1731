"""Run a lesson from the command line and keep what it showed.

    python notebooks/run.py 01 --out out
    python notebooks/run.py 01 --out out -p data hls_water -p FAST True

Leaves the executed notebook, an HTML page of it that needs no network, and whatever the lesson
writes to its `out_dir`; prints the scores.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import papermill
import yaml
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
#: Code, which stays as it is; or a formula between two dollars or one, on a line.
_FORMULA = re.compile(
    r"```.*?```|`[^`]*`|\$\$(.+?)\$\$|(?<![\\\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)", re.DOTALL
)
INTERACTIVE = "<p><em>Here is something to click on when you run the notebook.</em></p>"


def find_lesson(name: str) -> Path:
    """Return the notebook of a lesson, by its number or name, also in `solutions/`; or a copy."""
    if name.endswith(".ipynb"):
        return Path(name)
    found = [*NOTEBOOKS.glob(f"{name}.ipynb"), *NOTEBOOKS.glob(f"{name}_*.ipynb")]
    if len(found) != 1:
        lessons = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
        sys.exit(f"There is no lesson {name!r}. Lessons: {', '.join(lessons)}.")
    return found[0]


def drawn(found: re.Match[str]) -> str:
    """Return a formula of Markdown as a picture with its TeX as alternative text."""
    block, tex = found[1], found[1] or found[2]
    if not tex:
        return found[0]
    buffer = io.BytesIO()
    words = f"${tex.replace(chr(92) + 'textstyle', '').strip()}$"
    depth = math_to_image(words, buffer, format="svg", prop=FontProperties(size=11))  # points
    style = "display:block;margin:1em auto" if block else f"vertical-align:{-depth}pt"
    alt = escape(" ".join(tex.split())).replace("|", "&#124;")  # no border of a table
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" style="{style}" src="data:image/svg+xml;base64,{source}">'


def page(notebook: NotebookNode, title: str) -> str:
    """Return an executed notebook as one HTML page whose content needs no network.

    Widgets, which need a kernel, give way to what the same outputs say without one, and formulas to
    pictures.

    Raises:
        ValueError: A formula is not in the part of TeX that matplotlib draws.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _FORMULA.sub(drawn, cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None) is not None and "text/html" not in data:
                data["text/html"] = INTERACTIVE
    nothing = "data:text/javascript,"
    exporter = HTMLExporter(embed_images=True, require_js_url=nothing, mathjax_url=nothing)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return str(body)


def run_lesson(lesson: Path, out: Path, parameters: dict[str, Any]) -> Path:
    """Execute a lesson with papermill.

    Args:
        lesson: Its notebook.
        out: Folder to write to; the lesson gets it as `out_dir`.
        parameters: Values for the cell tagged `parameters`.

    Returns:
        Path of the HTML page.

    Raises:
        PapermillExecutionError: A cell failed; the executed notebook shows where.
    """
    # For the kernel: threads that wait for each other actively take the cores from one another as
    # soon as anything else runs on them, and training becomes ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out.mkdir(parents=True, exist_ok=True)
    given = {"out_dir": str(out.resolve()), **parameters}
    executed, html = out / lesson.name, out / f"{lesson.stem}.html"
    papermill.execute_notebook(lesson, executed, parameters=given, kernel_name="python3")
    html.write_text(page(nbformat.read(executed, 4), lesson.stem), encoding="utf-8")
    return html


def kernel_use() -> str:
    """Say how much processor time and memory the kernel took, where the system tells."""
    if sys.platform == "win32":
        return ""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * unit
    return f", of the processor {seconds:.0f} s, peak memory of the kernel {peak / 1e9:.2f} GB"


def main() -> None:
    """Run the lesson that the command line names, and print its scores and where things are."""
    parser = argparse.ArgumentParser(prog="python notebooks/run.py")
    parser.add_argument("lesson", help="number or name of a lesson, such as 01, or a notebook")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
        help="value for the lesson's parameters cell, for example -p data hls_water",
    )  # fmt: skip
    options = parser.parse_args()
    start = time.time()
    parameters = {name: yaml.safe_load(value) for name, value in options.parameters}
    html = run_lesson(find_lesson(options.lesson), options.out, parameters)
    print(f"\nLesson {html.stem}: {time.time() - start:.0f} s{kernel_use()}.\n")
    written = [path for path in html.parent.glob("[!.]*") if path.stat().st_mtime >= start]
    for path in sorted(path for path in written if path.is_file()):
        print(f"  {path}")
    if (scores := html.parent / "scores.csv") in written:
        print(f"\n{pd.read_csv(scores).to_string(index=False)}\n")
    print(f"The page: {html}. To go through it yourself in JupyterLab: make lab")


if __name__ == "__main__":
    main()
