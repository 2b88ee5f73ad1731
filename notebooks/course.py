"""Run every solved lesson whole and say what each took, as the README's table does.

    python notebooks/course.py --out out/course
    python notebooks/course.py --out out/course --lessons 04 07 --write

Each runs from what ships, and again with GEOPEFT_MIRROR where that is set. `times.csv` gets a row
as soon as a lesson is through; what has failed, or has a check that did not pass, ends it with 1.
`--write` writes the minutes of a processor, of the slower run, into README, guide and lessons.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import build
import nbformat
import pandas as pd
from run import NOTEBOOKS, find_lesson

SAID = r": (\d+) s, of the processor (\d+) s, peak memory of the kernel ([\d.]+) GB"


def whole(lesson: Path, out: Path, environment: dict[str, str]) -> dict[str, object]:
    """Run a solved lesson by the command of `make run`; return its row."""
    name = f"solutions/{lesson.stem}"
    command = [sys.executable, str(NOTEBOOKS / "run.py"), name, "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"lesson": lesson.stem, "failed": f"exit {done.returncode}: {done.stderr[-500:]}"}
    cells = nbformat.read(out / lesson.name, as_version=4).cells
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    words = "".join(data.get("text/html", "") for data in shown)
    states = re.findall(r'class="gp-check" data-state="([^"]+)"', words)
    longest = max(cell.metadata.papermill.duration or 0 for cell in cells)
    failed = "" if states and {*states} == {"passed"} else f"checks: {', '.join(states)}"
    wall, processor, peak = map(float, *re.findall(SAID, done.stdout))
    return {
        "lesson": lesson.stem, "failed": failed, "seconds": wall, "processor": processor,
        "peak_gb": peak, "longest_cell": round(longest, 1), "checks": len(states),
    }  # fmt: skip


def write_minutes(root: Path, lesson: str, seconds: float) -> None:
    """Write how long a lesson takes into README, teaching guide and the lesson's head."""
    minutes = math.ceil(seconds / 60)
    for name, before in (
        ("README.md", rf"/{lesson}\.ipynb\).* min, the computer "),
        ("notebooks/TEACHING.md", rf"\]\({lesson}\.ipynb\) \| \d+ \| "),
        (f"notebooks/source/{lesson}/lesson.py", "of which the computer needs about "),
    ):
        path = root / name
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(rf"({before})\d+", rf"\g<1>{minutes}", text), encoding="utf-8")


def main() -> None:
    """Run the lessons that are named, or all, and write the table."""
    parser = argparse.ArgumentParser(prog="python notebooks/course.py")
    parser.add_argument("--out", type=Path, default=Path("out/course"), help="folder to write to")
    parser.add_argument("--lessons", nargs="+", metavar="04", help="default: all")
    parser.add_argument("--write", action="store_true", help="write the minutes where they stand")
    options = parser.parse_args()
    named = [find_lesson(lesson) for lesson in options.lessons or []]
    ships = {name: value for name, value in os.environ.items() if name != "GEOPEFT_MIRROR"}
    sources = {"ships": ships} | ({"mirror": dict(os.environ)} if ships != os.environ else {})
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for source, environment in sources.items():
        for lesson in named or sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
            out = options.out / source / lesson.stem
            rows.append({"source": source, **whole(lesson, out, environment)})
            table = pd.DataFrame(rows)
            table.to_csv(options.out / "times.csv", index=False)
            print(table.tail(1).to_string(index=False, header=len(rows) == 1), flush=True)
    if table.failed.any():
        sys.exit(
            "These failed, so no minutes are written: "
            + ", ".join(table.lesson[table.failed != ""])
        )
    if options.write:
        for lesson, seconds in table.groupby("lesson").processor.max().items():
            write_minutes(NOTEBOOKS.parent, str(lesson), seconds)
        build.main([])


if __name__ == "__main__":
    main()
