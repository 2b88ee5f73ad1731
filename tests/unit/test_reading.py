"""Files of strangers: damaged, lying or asking for too much, they are refused before they cost."""

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
from geopeft_nb.training import resume

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
    with zipfile.ZipFile(path.with_suffix(".whole")) as old, zipfile.ZipFile(path, "w") as new:
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
    "no_dictionary.pt": lambda path: path.write_bytes(pickle.dumps([[[]]] * 9, 2))
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
    about["files"] = {}
    (copy / "adapter.json").write_text(json.dumps(about), encoding="utf-8")
    return copy


VALUES = {
    "nan": (torch.nan, None), "inf": (torch.inf, None), "-inf": (-torch.inf, None),
    "1e300": (1e300, torch.float64), "int": (1, torch.int32), "bool": (1, torch.bool)
}  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("method", "file"),
    [
        ("lora", "adapter_model"), ("lora", "decoder"), ("bitfit", "adapter_model"),
        ("full", "backbone"), ("vit_adapter", "backbone")
    ]
)  # fmt: skip
def test_an_adapter_with_numbers_that_are_none_is_refused_and_the_model_stays(
    method: str, file: str, value: str, saved: dict[str, Path], model: SegmentationModel,
    tmp_path: Path
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


# What adapters say of themselves

#: Bytes in the place of adapter.json or adapter_config.json.
WHOLE: dict[str, Callable[[str], bytes]] = {
    "empty": lambda old: b"", "null": lambda old: b"null", "list": lambda old: b"[]",
    "number": lambda old: b"7", "nothing": lambda old: b"{}", "cut": lambda old: old[:90].encode(),
    "utf-16": lambda old: old.encode("utf-16"),
    "latin-1": lambda old: old.replace("{", '{"\u00e9": 1,', 1).encode("latin-1"),
    "binary": lambda old: bytes(range(256)), "deep": lambda old: b"[" * 100_000 + b"]" * 100_000,
    "deep objects": lambda old: b'{"a":' * 100_000,
    "twice": lambda old: old.replace("{", '{"r": 1, "r": 2, ', 1).encode(),
    "large": lambda old: old.encode() + bytes(1_000_000),
    "digits": lambda old: old.replace("{", '{"x": ' + "1" * 5000 + ",", 1).encode(),
    "half a letter": lambda old: old.replace("{", '{"x": "\\ud800",', 1).encode()
}  # fmt: skip
SIX = [0.1] * 6
#: What is put in the place of fields of adapter.json; None takes them out.
FIELDS: list[tuple[str, object]] = [
    *((field, value) for value in (None, 7.5, [[None]])
      for field in ("backbone", "weights", "layers", "frames", "gsd", "metadata",
                    "decoder", "task", "bands", "classes", "mean", "std", "pad", "img_size",
                    "decoder_options", "method", "options", "adapter", "built_for")
      if (field, value) != ("gsd", 7.5)),
    ("mean", [*SIX[1:], torch.nan]), ("mean", [*SIX[1:], 10**400]), ("mean", [0.1]),
    ("mean", ["x"] * 6), ("std", [0.0] * 6), ("std", [-1.0] * 6), ("std", [torch.inf] * 6),
    ("img_size", 640_000_000), ("img_size", 0), ("img_size", True), ("gsd", -1.0),
    ("gsd", torch.nan), ("layers", ["x"]), ("layers", [10**9]), ("classes", []),
    ("classes", ["land", "land"]), ("classes", [1, 2]), ("bands", ["X"] * 6), ("bands", ["RED"]),
    ("bands", ["RED"] * 6), ("metadata", ["x"]), ("task", "x"), ("decoder", "x"),
    ("method", "x"), ("options", {"x": 1}), ("adapter", "a.b/../c"), ("adapter", "keys"),
    ("weights", f"random initialisation, seed {10**30}"), ("decoder_options", {"x": 1}),
    ("built_for", {}), ("built_for", {"data": "x"}), ("built_for", {"data": {"name": "x"}}),
    ("files", [1]), ("files", {"x": 1}), ("files", {"x": {"size": 1}})
]  # fmt: skip
#: The same of adapter_config.json.
CONFIG: list[tuple[str, object]] = [
    ("lora_alpha", 1e300), ("lora_alpha", torch.nan), ("lora_alpha", torch.inf),
    ("lora_alpha", "x"), ("lora_alpha", -1), ("alpha_pattern", {"q": 1e300}), ("r", 0),
    ("r", 10**9), ("r", torch.nan), ("r", "8"), ("r", 2.5), ("lora_dropout", 7),
    ("lora_dropout", torch.nan), ("rank_pattern", {"(.+)+!": 2}), ("rank_pattern", {"q": 10**9}),
    ("rank_pattern", {f"x{number}": 2 for number in range(9_000)}), ("target_modules", "(.+)+!"),
    ("target_modules", ".*.*.*.*!"), ("target_modules", "(.|.)" * 40 + "!"),
    ("target_modules", "("), ("target_modules", []), ("target_modules", 7),
    ("target_modules", ["other"]), ("target_modules", [1]), ("exclude_modules", "(.+)+!"),
    ("layer_replication", [[0, 10**6]]), ("peft_type", "X"), ("peft_type", None),
    ("peft_type", ["LORA"]), ("peft_type", "PREFIX_TUNING"), ("peft_type", "VERA"),
    ("modules_to_save", ["."]), ("init_lora_weights", "x"), ("bias", "x"), ("task_type", "X")
]  # fmt: skip


def put(file: Path, field: str, value: object) -> None:
    about = json.loads(file.read_text(encoding="utf-8")) | {field: value}
    if value is None:
        del about[field]
    file.write_text(json.dumps(about), encoding="utf-8")


REFUSED = "is damaged|does not fit the model|name of an adapter|seed takes"


def refuse(folder: Path, model: SegmentationModel, match: str = REFUSED) -> None:
    for load in (lambda: gp.load_adapter(model, folder), lambda: gp.load_model(folder)):
        with pytest.raises(GeopeftError, match=match):
            load()
    assert model.method is None


@pytest.fixture(scope="module")
def bare(data: GeoData) -> SegmentationModel:
    return gp.build_model(gp.load_backbone("geopeft_tiny"), data)


@pytest.mark.parametrize("file", ["adapter.json", "adapter_config.json"])
@pytest.mark.parametrize("damage", WHOLE)
def test_text_that_is_no_description_is_refused(
    damage: str, file: str, saved: dict[str, Path], bare: SegmentationModel, tmp_path: Path
) -> None:
    path = copy_of(saved["lora"], tmp_path) / file
    path.write_bytes(WHOLE[damage](path.read_text(encoding="utf-8")))
    refuse(path.parent, bare)
    if file == "adapter.json":
        with pytest.raises(GeopeftError, match="is damaged, or of"):
            gp.push_adapter(path.parent, "nobody/nothing")


@pytest.mark.parametrize("file", ["adapter.json", "adapter_config.json"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(
    make: Callable[[Path], object], file: str, saved: dict[str, Path], bare: SegmentationModel,
    tmp_path: Path
) -> None:  # fmt: skip
    path = copy_of(saved["lora"], tmp_path) / file
    path.unlink()
    make(path)
    with pytest.raises(FileNotFoundError, match=f"no {file}"):
        gp.load_adapter(bare, path.parent)


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_that_no_model_can_have_is_refused(
    field: str, value: object, saved: dict[str, Path], bare: SegmentationModel, tmp_path: Path
) -> None:
    folder = copy_of(saved["lora"], tmp_path)
    put(folder / "adapter.json", field, value)
    refuse(folder, bare)


@pytest.mark.parametrize(("field", "value"), CONFIG)
def test_a_config_that_no_adapter_can_have_is_refused(
    field: str, value: object, saved: dict[str, Path], bare: SegmentationModel, tmp_path: Path
) -> None:
    folder = copy_of(saved["lora"], tmp_path)
    put(folder / "adapter_config.json", field, value)
    with pytest.raises(GeopeftError):
        gp.load_adapter(bare, folder)
    assert bare.method is None


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("adapter.json", "classes", [str(number) for number in range(90_000)]),
        ("adapter.json", "decoder_options", {"kernel": 128}),
        ("adapter_config.json", "r", 4_000),
    ],
)
def test_an_adapter_takes_no_memory_before_its_files_fit(
    file: str, field: str, value: object, saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(saved["lora"], tmp_path)
    put(folder / file, field, value)
    refused(lambda: gp.load_model(folder))


# Checkpoints of runs

RUN: dict[str, object] = {
    "about": {}, "ended": False, "epoch": 1, "global_step": 4, "state_dict": {"x": torch.ones(999)},
    "callbacks": {"EarlyStopping{}": {"wait_count": 0}},
    "optimizer_states": [], "lr_schedulers": [], "loops": {}
}  # fmt: skip
HARM: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "a bit": lambda path: path.write_bytes(path.read_bytes().replace(b"\x80\x3f", b"\x80\x3e", 1)),
    "list": lambda path: torch.save([], path), "compressed": compressed,
    "laughing": laughing, "code": lambda path: torch.save(RUN | {"about": os.getcwd}, path),
    **{f"{key} {bad!r}": lambda path, key=key, bad=bad: torch.save(RUN | {key: bad}, path)
       for key in RUN for bad in (None, "x", 1.5)},
    "callbacks": lambda path: torch.save(RUN | {"callbacks": {}}, path),
    "stopping": lambda path: torch.save(RUN | {"callbacks": {"EarlyStopping": 1}}, path)
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_checkpoint_of_a_run_is_refused_in_one_way(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    torch.save(RUN, path)
    assert resume.read(path)["epoch"] == 1
    HARM[harm](path)
    said = refused(lambda: resume.read(path))
    assert "run.ckpt is damaged" in said and "Delete it and begin anew" in said
