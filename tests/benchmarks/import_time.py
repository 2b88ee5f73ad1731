"""How long does `import geopeft_nb` take, beside an import of torch in the same process kind?

python tests/benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    """Return the median import time of five fresh processes."""
    command = [sys.executable, "-c", CODE.format(module)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    """Print both times and their ratio."""
    ours, torch = seconds("geopeft_nb"), seconds("torch")
    print(f"import geopeft_nb {ours:.4f} s, import torch {torch:.2f} s, ratio {ours / torch:.4f}")


if __name__ == "__main__":
    main()
