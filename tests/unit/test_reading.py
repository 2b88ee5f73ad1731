"""Files of strangers: damaged, lying or asking for too much, they are refused before they cost."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import data_folder
from geopeft_nb.models import SegmentationModel

KEY = "encoder.blocks.0.mlp.fc1.weight"
#: Bytes that a refusal may take.
MEMORY = 500_000_000


def refused(action: Callable[[], object]) -> str:
    """Return what a call refuses with, in a fork whose memory is watched and limited."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 3 * 10**9, -1))
        try:
            said = f"not refused: {action()}"
        except GeopeftError as error:
            said = f"refused: {error}"
        except BaseException as error:
            said = f"raised {error!r}"
        taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        said = said if taken < MEMORY else f"took {taken:,} bytes and {said}"
        os.write(write, said[:3000].encode(errors="replace"))
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    assert said.startswith("refused: "), said
    return said


# Checkpoints


def tiny() -> dict[str, Tensor]:
    return load_file(data_folder() / "models/geopeft_tiny.safetensors")


def many_views(path: Path) -> None:
    block = torch.zeros(1_000_000, dtype=torch.float16)
    torch.save({KEY: tiny()[KEY], **{f"x{n}": block.view(1000, 1000) for n in range(2000)}}, path)


def compressed(path: Path) -> None:
    """Write an archive of a few megabytes that names a tensor of 800 MB."""
    with torch.serialization.skip_data():
        torch.save({KEY: torch.empty(200_000_000)}, path.with_suffix(".loose"))
    with (
        zipfile.ZipFile(path.with_suffix(".loose")) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            with new.open(name, "w", force_zip64=True) as member:
                for part in [bytes(1_000_000)] * 800 if "/data/0" in name else [old.read(name)]:
                    member.write(part)


def short_record(path: Path) -> None:
    """Write an archive whose pickle names more numbers than its record holds."""
    torch.save({KEY: torch.zeros(768, 192)}, path.with_suffix(".whole"))
    with (
        zipfile.ZipFile(path.with_suffix(".whole")) as old,
        zipfile.ZipFile(path, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, b"0123" if "/data/0" in name else old.read(name))


def laughing(path: Path) -> None:
    content: object = ["ha" * 50]
    for _ in range(8):
        content = [content] * 10
    torch.save({"state_dict": content}, path)


def laughing_key(path: Path) -> None:
    key: object = ("ha" * 50,)
    for _ in range(8):
        key = (key,) * 10
    torch.save({key: torch.zeros(3)}, path)


def sparse_file(path: Path) -> None:
    head = f'{{"{KEY}":{{"dtype":"F16","shape":[1000000000],"data_offsets":[0,2000000000]}}}}'
    path.write_bytes(len(head).to_bytes(8, "little") + head.encode())
    os.truncate(path, 8 + len(head) + 2_000_000_000)


def half(*shape: int) -> Tensor:
    return torch.zeros(1, dtype=torch.float16).expand(*shape)


def holding(**tensors: Tensor) -> Callable[[Path], object]:
    return lambda path: torch.save({**tiny(), **tensors}, path)


def in_old_format(path: Path) -> None:
    torch.save({**tiny(), KEY: half(10**9)}, path, _use_new_zipfile_serialization=False)


CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "view.pt": holding(**{KEY: half(10**9)}), "view_beside.pt": holding(other=half(10**5, 10**4)),
    "view_of_right_shape.pt": holding(**{KEY: half(768, 192)}, other=half(10**9)),
    "view_in_model.pt": lambda path: torch.save({"model": {KEY: half(10**9)}}, path),
    "old_format.pt": in_old_format, "views.pt": many_views, "compressed.pt": compressed,
    "short_record.pt": short_record, "laughing.pt": laughing, "laughing_key.pt": laughing_key,
    "wrong_shape.safetensors": sparse_file,
    "sparse.pt": holding(**{KEY: torch.eye(768).to_sparse()}),
    "meta.pt": holding(**{KEY: torch.empty(10**10, device="meta")}),
    "double.pt": holding(**{KEY: torch.full((768, 192), 1e300, dtype=torch.float64)}),
    "complex.pt": holding(**{KEY: torch.ones(768, 192, dtype=torch.complex64)}),
    "no_dictionary.pt": lambda path: path.write_bytes(pickle.dumps([[[]]] * 9, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_asks_for_more_than_it_holds_is_refused_at_no_cost(
    name: str, tmp_path: Path
) -> None:
    CHECKPOINTS[name](tmp_path / name)
    assert name in refused(lambda: gp.load_backbone("geopeft_tiny", tmp_path / name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.filterwarnings("ignore:.*never saw")
def test_a_checkpoint_of_another_precision_is_taken(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({key: value.to(dtype) for key, value in tiny().items()}, tmp_path / "tiny.pt")
    backbone = gp.load_backbone("geopeft_tiny", tmp_path / "tiny.pt", bands=["RED", "RED_EDGE_1"])
    assert {weight.dtype for weight in backbone.parameters()} == {torch.float32}


# Adapters


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


@pytest.fixture(scope="module")
def saved(data: GeoData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for method in ("lora", "bitfit", "full", "vit_adapter"):
        model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), method)
        folders[method] = gp.save_adapter(model, tmp_path_factory.mktemp(method) / "adapter")
    return folders


@pytest.fixture
def model(data: GeoData) -> SegmentationModel:
    return gp.build_model(gp.load_backbone("geopeft_tiny"), data)


def copy_of(folder: Path, beside: Path) -> Path:
    """Copy a saved adapter, without the checksums, which an attacker would write anew."""
    copy = Path(shutil.copytree(folder, beside / "adapter"))
    about = json.loads((copy / "adapter.json").read_text(encoding="utf-8"))
    about.pop("files", None)
    (copy / "adapter.json").write_text(json.dumps(about), encoding="utf-8")
    return copy


VALUES = {
    "nan": (torch.nan, None), "inf": (torch.inf, None), "-inf": (-torch.inf, None),
    "1e300": (1e300, torch.float64), "int": (1, torch.int32), "bool": (1, torch.bool),
}  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("method", "file"),
    [
        ("lora", "adapter_model"), ("lora", "decoder"), ("bitfit", "adapter_model"),
        ("full", "backbone"), ("vit_adapter", "backbone"),
    ],
)  # fmt: skip
def test_an_adapter_with_numbers_that_are_none_is_refused_and_the_model_stays(
    method: str, file: str, value: str, saved: dict[str, Path], model: SegmentationModel,
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = copy_of(saved[method], tmp_path)
    tensors = load_file(folder / f"{file}.safetensors")
    key = next(key for key in sorted(tensors) if tensors[key].is_floating_point())
    number, dtype = VALUES[value]
    tensors[key] = tensors[key].to(dtype or torch.float32, copy=True)
    tensors[key].view(-1)[0] = number
    save_file(tensors, folder / f"{file}.safetensors")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    with pytest.raises(GeopeftError, match="no finite real numbers"):
        gp.load_adapter(model, folder)
    assert [type(module) for module in model.modules()] == modules and model.method is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
