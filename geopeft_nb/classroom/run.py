"""Run a lesson from the command line and keep what it showed.

    python -m geopeft_nb.classroom.run 01 --out out
    python -m geopeft_nb.classroom.run 01 --out out -p data hls_water -p FAST True

Leaves the executed notebook, an HTML page of it that needs no network, and whatever the lesson
writes to its `out_dir`; prints the scores.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from geopeft_nb.errors import unknown_name

_WIDGET = "application/vnd.jupyter.widget-view+json"
_INTERACTIVE = "<p><em>Here is something to click on when you run the notebook.</em></p>"


def lessons_folder() -> Path:
    """Return the folder of the lessons: in a checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"


def find_lesson(name: str) -> Path:
    """Return the notebook of a lesson.

    Args:
        name: The lesson's number or name, for example ``"01"``, or ``"solutions/01"``.

    Raises:
        ValueError: There is no such lesson; the message lists all.
    """
    folder = lessons_folder()
    paths = [*sorted(folder.glob("*.ipynb")), *sorted(folder.glob("solutions/*.ipynb"))]
    lessons = {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    for title, path in lessons.items():
        if name in (title, title.split("_")[0]):
            return path
    raise unknown_name("lesson", name, lessons)


def static_notebook(notebook: NotebookNode) -> NotebookNode:
    """Replace widgets, which need a kernel, by what the same outputs say without one.

    Args:
        notebook: An executed notebook; it is changed in place.

    Returns:
        The same notebook.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(_WIDGET, None) is not None and "text/html" not in data:
                data["text/html"] = _INTERACTIVE
    return notebook


def page(notebook: NotebookNode, title: str) -> str:
    """Return an executed notebook as one HTML page whose content needs no network.

    Formulas are the exception: the page shows their source until MathJax can be loaded.
    """
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(embed_images=True, require_js_url="data:text/javascript,")
    resources = {"metadata": {"name": title}}
    body, _ = exporter.from_notebook_node(static_notebook(notebook), resources=resources)
    return str(body)


def run_lesson(name: str, out: Path, parameters: dict[str, Any]) -> Path:
    """Execute a lesson with papermill.

    Args:
        name: The lesson's number or name.
        out: Folder to write to; the lesson gets it as `out_dir`.
        parameters: Values for the cell tagged `parameters`.

    Returns:
        Path of the HTML page.

    Raises:
        ValueError: Unknown lesson.
        PapermillExecutionError: A cell failed; the executed notebook shows where.
    """
    import nbformat
    import papermill

    # For the kernel: threads that wait for each other actively take the cores from one another as
    # soon as anything else runs on them, and training becomes ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    lesson = find_lesson(name)
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    executed, html = out / lesson.name, out / f"{lesson.stem}.html"
    papermill.execute_notebook(
        lesson, executed, parameters={"out_dir": str(out), **parameters}, kernel_name="python3"
    )
    partial = html.with_suffix(".part")
    partial.write_text(page(nbformat.read(executed, 4), lesson.stem), encoding="utf-8")
    return partial.replace(html)


def kernel_peak() -> str:
    """Say how much memory the kernel took at most, where the system tells."""
    if sys.platform == "win32":
        return ""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return f", peak memory of the kernel {peak / 1e9:.2f} GB"


def main(arguments: list[str] | None = None) -> None:
    """Run the lesson that the command line names, and print its scores and where things are."""
    parser = argparse.ArgumentParser(prog="python -m geopeft_nb.classroom.run")
    parser.add_argument("lesson", help="number or name of a lesson, for example 01")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
        help="value for the lesson's parameters cell, for example -p data hls_water",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    start = time.time()
    parameters = {key: _value(text) for key, text in options.parameters}
    html = run_lesson(options.lesson, options.out, parameters)
    print(f"\nLesson {html.stem}: {time.time() - start:.0f} s{kernel_peak()}.\n")
    written = [path for path in html.parent.iterdir() if path.stat().st_mtime >= start]
    for path in sorted(path for path in written if path.is_file()):
        print(f"  {options.out / path.name}")
    scores = html.parent / "scores.csv"
    if scores in written:
        import pandas as pd

        print(f"\n{pd.read_csv(scores).to_string(index=False)}\n")
    in_checkout = Path("Makefile").is_file() and find_lesson(options.lesson).is_relative_to(
        Path.cwd()
    )
    lab = "make lab" if in_checkout else f"jupyter lab {options.out / html.stem}.ipynb"
    print(f"The page: {options.out / html.name}. To go through it yourself in JupyterLab: {lab}")


def _value(text: str) -> Any:  # noqa: ANN401 - whatever Python literal it spells
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):  # a bare word is a string
        return text


if __name__ == "__main__":
    main()
