"""Outputs that the lessons' deterministic cells must show, kept beside the tests.

Built notebooks carry no outputs, and nbval compares a notebook with the outputs stored in it. So
the outputs of the cells tagged `nbval-check-output` are stored in reference/NN_name.json, by cell
id (which follows from the cell's source), and put into a copy of the notebook that nbval runs.

`make reference` runs the lessons in fast mode and stores these outputs again.
"""

import json
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

TAG = "nbval-check-output"
FOLDER = Path(__file__).parent / "reference"
LESSONS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
# Pictures differ between versions of matplotlib, and widgets have random names.
NOT_COMPARED = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}


def checked_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells whose output is compared."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if TAG in cell.metadata.get("tags", [])]


def with_reference(lesson: Path, out: Path) -> NotebookNode:
    """Return a lesson in fast mode with the stored outputs in its checked cells.

    Args:
        lesson: The built notebook.
        out: Folder that the lesson may write to.

    Raises:
        ValueError: A checked cell has no stored output, because its source has changed.
    """
    notebook = load_notebook_node(str(lesson))
    path = FOLDER / f"{lesson.stem}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    cells = checked_cells(notebook)
    for cell in cells:
        if cell.id not in stored:
            raise ValueError(
                f"{path.name} has no output for the cell {cell.source[:60]!r}: it is new or was "
                "changed. Look at its output, then run `make reference`."
            )
        cell.outputs = [nbformat.from_dict(output) for output in stored[cell.id]["outputs"]]
        cell.execution_count = 1
    return fast(notebook, out)


def shown(executed: NotebookNode) -> dict[str, object]:
    """Return source and outputs of the checked cells by their id, as far as they are compared."""
    for cell in checked_cells(executed):
        cell.outputs = coalesce_streams(cell.outputs)  # where a kernel flushes is chance
        for output in cell.outputs:
            output.pop("execution_count", None)
            output.get("metadata", {}).clear()
            for kind in NOT_COMPARED & set(output.get("data", {})):
                del output.data[kind]
            if output.output_type == "execute_result":
                output.execution_count = 1
    cells = checked_cells(executed)
    return {cell.id: {"source": cell.source, "outputs": cell.outputs} for cell in cells}


def solved_before_open(lesson: Path) -> NotebookNode:
    """Return a lesson with open exercises, before each of which its solution is checked, too."""
    notebook = load_notebook_node(str(lesson))
    solved = load_notebook_node(str(lesson.parent / "solutions" / lesson.name))
    cells, pairs = [], list(zip(notebook.cells, solved.cells, strict=True))
    for (cell, answer), (check, _) in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
        if cell.cell_type == "code" and cell.source != answer.source:
            assert "gp.check(" in check.source, "the cell behind an exercise checks it"
            again = nbformat.from_dict({**check, "id": f"{check.id}-solved", "metadata": {}})
            cells += [answer, again]
        cells.append(cell)
    notebook.cells = cells
    return notebook


def fast(notebook: NotebookNode, out: Path) -> NotebookNode:
    """Return the notebook in fast mode, writing to a folder of the test's."""
    return parameterize_notebook(notebook, {"FAST": True, "out_dir": str(out)})


def store(lesson: Path) -> int:
    """Run a lesson in fast mode and store the outputs of its checked cells; return their number."""
    with tempfile.TemporaryDirectory() as folder:
        executed = papermill.execute_notebook(
            lesson,
            Path(folder) / lesson.name,
            parameters={"FAST": True, "out_dir": folder},
            kernel_name="python3",
            cwd=folder,
        )
    stored = shown(executed)
    content = json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    (FOLDER / f"{lesson.stem}.json").write_text(content, encoding="utf-8")
    return len(stored)


def main(names: list[str]) -> None:
    """Store the outputs of the named lessons, or of all."""
    for lesson in LESSONS:
        if not names or lesson.stem in names or lesson.stem[:2] in names:
            print(f"{lesson.stem}: {store(lesson)} checked cells")


if __name__ == "__main__":
    main(sys.argv[1:])
