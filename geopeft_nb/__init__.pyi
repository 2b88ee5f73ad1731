"""Public names for editors and type checkers; `__init__.py` reads here where they are."""
# isort: skip_file

from geopeft_nb.backbones.load import list_backbones as list_backbones
from geopeft_nb.backbones.load import load_backbone as load_backbone
from geopeft_nb.benchmark.run import run_benchmark as run_benchmark
from geopeft_nb.classroom.check import check as check
from geopeft_nb.classroom.quiz import quiz as quiz
from geopeft_nb.datasets.folds import knndm_folds as knndm_folds
from geopeft_nb.datasets.load import leave_one_region_out as leave_one_region_out
from geopeft_nb.datasets.load import list_datasets as list_datasets
from geopeft_nb.datasets.load import load_data as load_data
from geopeft_nb.datasets.split import shared_places as shared_places
from geopeft_nb.decoders.load import list_decoders as list_decoders
from geopeft_nb.errors import GeopeftError as GeopeftError
from geopeft_nb.evaluation.compare import compare as compare
from geopeft_nb.evaluation.forgetting import forgetting as forgetting
from geopeft_nb.evaluation.regions import evaluate as evaluate
from geopeft_nb.evaluation.regions import plot_reports as plot_reports
from geopeft_nb.evaluation.scene import predict_scene as predict_scene
from geopeft_nb.maps.data_card import data_card as data_card
from geopeft_nb.maps.region import map_regions as map_regions
from geopeft_nb.maps.scene import map_scene as map_scene
from geopeft_nb.memory.frugal import list_recipes as list_recipes
from geopeft_nb.memory.plan import measure_memory as measure_memory
from geopeft_nb.memory.plan import memory_plan as memory_plan
from geopeft_nb.memory.plan import memory_widget as memory_widget
from geopeft_nb.memory.shortage import OutOfMemory as OutOfMemory
from geopeft_nb.models import build_model as build_model
from geopeft_nb.pictures.show import show as show
from geopeft_nb.sharing import export_onnx as export_onnx
from geopeft_nb.sharing import export_terratorch as export_terratorch
from geopeft_nb.sharing import push_adapter as push_adapter
from geopeft_nb.sharing import save_adapter as save_adapter
from geopeft_nb.training.fit import fit as fit
from geopeft_nb.training.fit import find_lr as find_lr
from geopeft_nb.tuning.adapter_files import load_adapter as load_adapter
from geopeft_nb.tuning.adapter_files import load_model as load_model
from geopeft_nb.tuning.adapter_files import merge as merge
from geopeft_nb.tuning.methods import attach as attach
from geopeft_nb.tuning.methods import list_methods as list_methods
from geopeft_nb.tuning.methods import parameter_table as parameter_table

__version__: str
