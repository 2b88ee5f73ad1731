"""Learn, teach and use parameter-efficient fine-tuning of geospatial foundation models.

    import geopeft_nb as gp

Load a backbone, attach a PEFT module, train it while you watch, judge it region by region, see it
on a map. Every name below is imported when it is first used, so that the import itself is instant.
"""

# ruff: noqa: F401 - what is imported for editors alone is public by the table above it

import os
from importlib import import_module
from inspect import isfunction
from typing import TYPE_CHECKING, Any

from geopeft_nb.errors import check_arguments

__version__ = "0.1.0"

# On CPUs with AMX, oneDNN up to 3.12 (in torch up to 2.15 at least) computes bfloat16 convolutions
# such as Prithvi's patch embedding wrongly: github.com/pytorch/pytorch/issues/169688. It reads this
# when it first computes; whoever sets it otherwise keeps what they set.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

#: Module -> the public names that it holds.
_ROOMS = {
    "backbones.load": "list_backbones load_backbone",
    "benchmark.run": "run_benchmark",
    "classroom.check": "check",
    "classroom.quiz": "quiz",
    "datasets.folds": "knndm_folds",
    "datasets.load": "leave_one_region_out list_datasets load_data",
    "decoders.load": "list_decoders",
    "errors": "GeopeftError",
    "evaluation.compare": "compare",
    "evaluation.forgetting": "forgetting",
    "evaluation.regions": "evaluate plot_reports",
    "evaluation.scene": "predict_scene",
    "maps.data_card": "data_card",
    "maps.region": "map_regions",
    "maps.scene": "map_scene",
    "memory.frugal": "list_recipes",
    "memory.plan": "measure_memory memory_plan",
    "memory.shortage": "OutOfMemory",
    "memory.sliders": "memory_widget",
    "models": "build_model",
    "pictures.show": "show",
    "sharing": "export_onnx export_terratorch push_adapter save_adapter",
    "training.fit": "fit",
    "training.learning_rate": "find_lr",
    "tuning.adapter_files": "load_adapter load_model merge",
    "tuning.methods": "attach list_methods parameter_table",
}
_WHERE = {name: room for room, names in _ROOMS.items() for name in names.split()}
__all__ = sorted(_WHERE)

if TYPE_CHECKING:  # for editors
    from geopeft_nb.backbones.load import list_backbones, load_backbone
    from geopeft_nb.benchmark.run import run_benchmark
    from geopeft_nb.classroom.check import check
    from geopeft_nb.classroom.quiz import quiz
    from geopeft_nb.datasets.folds import knndm_folds
    from geopeft_nb.datasets.load import leave_one_region_out, list_datasets, load_data
    from geopeft_nb.decoders.load import list_decoders
    from geopeft_nb.errors import GeopeftError
    from geopeft_nb.evaluation.compare import compare
    from geopeft_nb.evaluation.forgetting import forgetting
    from geopeft_nb.evaluation.regions import evaluate, plot_reports
    from geopeft_nb.evaluation.scene import predict_scene
    from geopeft_nb.maps.data_card import data_card
    from geopeft_nb.maps.region import map_regions
    from geopeft_nb.maps.scene import map_scene
    from geopeft_nb.memory.frugal import list_recipes
    from geopeft_nb.memory.plan import measure_memory, memory_plan
    from geopeft_nb.memory.shortage import OutOfMemory
    from geopeft_nb.memory.sliders import memory_widget
    from geopeft_nb.models import build_model
    from geopeft_nb.pictures.show import show
    from geopeft_nb.sharing import export_onnx, export_terratorch, push_adapter, save_adapter
    from geopeft_nb.training.fit import fit
    from geopeft_nb.training.learning_rate import find_lr
    from geopeft_nb.tuning.adapter_files import load_adapter, load_model, merge
    from geopeft_nb.tuning.methods import attach, list_methods, parameter_table


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'geopeft_nb' has no attribute {name!r}")
    value = getattr(import_module(f"geopeft_nb.{_WHERE[name]}"), name)
    if isfunction(value) and not hasattr(value, "__wrapped__"):
        value = check_arguments(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
