"""Learn, teach and use parameter-efficient fine-tuning of geospatial foundation models.

    import geopeft_nb as gp

Load a backbone, attach a PEFT module, train it while you watch, judge it region by region, see it
on a map. Every name below is imported when it is first used, so that the import itself is instant.
"""

import ast
import os
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from typing import Any

from geopeft_nb.errors import check_arguments

__version__ = "0.1.0"

# On CPUs with AMX, oneDNN up to 3.12 (in torch up to 2.15 at least) computes bfloat16 convolutions
# such as Prithvi's patch embedding wrongly: github.com/pytorch/pytorch/issues/169688. It reads this
# when it first computes; whoever sets it otherwise keeps what they set.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

#: Public name -> the module that has it, as the stub beside this file tells editors.
_WHERE = {
    name.name: str(line.module)
    for line in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(line, ast.ImportFrom)
    for name in line.names
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'geopeft_nb' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    # those that our own modules call too are wrapped where they stand
    if isfunction(value) and not hasattr(value, "__wrapped__"):
        value = check_arguments(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
