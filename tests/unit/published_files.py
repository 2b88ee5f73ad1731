"""A few made-up chips of each published data set, in the layout that it has.

Band number b of a file, from 1, is b times the case's `level` everywhere. Masks are class 0 in the
west and 1 in the east.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import h5py
import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from geopeft_nb.datasets.geodata import DataCard
from geopeft_nb.datasets.published import burn_scars, eurosat, geobench, reben, sen1floods11

HAND = "v1.1/data/flood_events/HandLabeled"
PATCH = "S2A_MSIL2A_20170613T101031_N9999_R022_T34VER_{}"
#: What stands in for the published lists.
LISTS = {
    "sen1floods11": {
        "train": ["Spain_1", "Mekong_1", "Sri-Lanka_1038087"], "val": ["Spain_2", "Mekong_2"],
        "test": ["Spain_3", "Mekong_3"], "holdout": ["Bolivia_1"],
    },
    "burn_scars": {
        "train": ["T10SEJ.2018185.v1", "T10SFE.2020267.v1", "T17SQU.2018121.v1"],
        "val": ["T10SEJ.2018220.v1", "T17SQD.2020094.v1"],
        "test": ["T10SDH.2020248.v1", "T17SPS.2020039.v1"],
    },
    "reBEN": {
        "train": [PATCH.format("04_62"), PATCH.format("04_69")],
        "val": [PATCH.format("15_55")], "test": [PATCH.format("25_49")],
        "holdout": [
            "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_28_55",
            "S2A_MSIL2A_20170617T113321_N9999_R080_T29UPU_24_24",
        ],
    },
}  # fmt: skip
TILE = "ref_south_africa_crops_competition_v1_train_labels_{:04}_{}"
PARTITIONS = {
    "m_cashew_plantation": {
        "train": ["sample_0", "sample_1", "sample_1799"], "valid": ["sample_26"],
        "test": ["sample_700"],
    },
    "m_sa_crop_type": {
        "train": [TILE.format(1, 0), TILE.format(1, 4), TILE.format(1234, 2)],
        "valid": [TILE.format(7, 0)], "test": [TILE.format(9, 1)],
    },
}  # fmt: skip
#: Keys of GEO-Bench's arrays, in the order of the card's bands.
KEYS = (
    "01 - Coastal aerosol", "02 - Blue", "03 - Green", "04 - Red", "05 - Vegetation Red Edge",
    "06 - Vegetation Red Edge", "07 - Vegetation Red Edge", "08 - NIR",
    "08A - Vegetation Red Edge", "09 - Water vapour", "11 - SWIR", "12 - SWIR",
)  # fmt: skip
#: Region of EuroSAT -> longitude, and zone of UTM, of its four places with two chips each.
WHERE = {"west": (-4.1, 30), "centre": (8.1, 32), "east": (20.1, 34)}
EUROSAT = {
    f"{name}_{number}": (region, 47.05 + place, longitude + 0.06 * pair)
    for number, (region, (longitude, _)) in enumerate(WHERE.items(), start=1)
    for place in range(4)
    for pair in range(2)
    for name in [list(eurosat.CLASSES)[2 * place + pair]]
}


def pairs(folder: str, download: bool = True) -> list[tuple[str, str]]:
    """Stand in for `common.listed`."""
    return [(side, name) for side, names in LISTS[folder].items() for name in names]


@dataclass(frozen=True)
class Case:
    """A data set and what its made-up files hold.

    Attributes:
        card: Its card.
        make: Writes the files below a folder.
        sides: Chips that are to be loaded on each side; of one that is split by place, none.
        files: Files of the first chip of training, in `root`, from image to label.
        level: What a chip's first band is.
    """

    card: DataCard
    make: Callable[[Path], None]
    sides: dict[str, list[str]]
    files: list[str]
    level: float = 0.1

    def __str__(self) -> str:
        return self.card.name


def write_raster(
    path: Path, pixels: np.ndarray, epsg: int, corner: tuple[float, float], step: float
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        crs=f"EPSG:{epsg}", transform=from_origin(*corner, step, step), compress="deflate",
    ) as raster:  # fmt: skip
        raster.write(pixels)


def levels(count: int, side: int, level: float, kind: type) -> np.ndarray:
    ramp = np.arange(1, count + 1)[:, None, None] * level
    return np.broadcast_to(ramp, (count, side, side)).astype(kind)


def halves(side: int, west: int = 0, east: int = 1, kind: type = np.int16) -> np.ndarray:
    return np.repeat([[west] * (side // 2) + [east] * (side // 2)], side, axis=0).astype(kind)[None]


def make_floods(root: Path) -> None:
    for _, chip in pairs("sen1floods11"):
        image, label = (root / HAND / p / f"{chip}_{p}.tif" for p in ("S2Hand", "LabelHand"))
        write_raster(image, levels(13, 512, 1000, np.int16), 4326, (-0.78, 38.12), 9e-5)
        write_raster(label, halves(512), 4326, (-0.78, 38.12), 9e-5)


def burn_files(name: str) -> list[str]:
    return [f"subsetted_512x512_HLS.S30.{name}.4{end}" for end in ("_merged.tif", ".mask.tif")]


def make_burns(root: Path) -> None:
    for number, (_, chip) in enumerate(
        pairs("burn_scars")
    ):  # its own folders are another split than the lists
        here = root / ("validation" if number % 3 == 1 else "training")
        place = 32600 + int(chip[1:3]), (500_000, 4_400_000), 30
        image, label = (here / name for name in burn_files(chip))
        write_raster(image, levels(6, 512, 0.1, np.float32), *place)
        write_raster(label, halves(512), *place)


def patch_file(kind: str, patch: str, ending: str) -> str:
    return f"{kind}/{patch.rsplit('_', 2)[0]}/{patch}/{patch}_{ending}.tif"


def make_table(root: Path, countries: dict[str, str], labels: list[str]) -> None:
    with duckdb.connect() as database:
        database.execute(
            "copy (select unnest(?) patch_id, ?::varchar[] labels, 'train' split, unnest(?) "
            f"country) to '{root / 'metadata.parquet'}' (format parquet)",
            [list(countries), labels, list(countries.values())],
        )


def make_patches(root: Path) -> None:
    patches = [patch for _, patch in pairs("reBEN")]
    for patch in patches:
        place = 32600 + int(patch.split("_")[5][1:3]), (504_780, 7_025_640)
        for position, (number, (_, _, metres)) in enumerate(reben._BANDS.items(), start=1):
            pixels = np.full((1, 1200 // metres, 1200 // metres), 1000 * position, np.uint16)
            write_raster(root / patch_file("BigEarthNet-S2", patch, number), pixels, *place, metres)
        codes = halves(120, 244, 211, np.uint16)  # agro-forestry, class 0, and arable land, 1
        write_raster(root / patch_file("Reference_Maps", patch, "reference_map"), codes, *place, 10)
    make_table(root, dict.fromkeys(patches, "Finland"), ["Agro-forestry areas", "Pastures"])


def eurosat_file(name: str) -> str:
    return f"ds/images/sentinel_2/tif/{name.rpartition('_')[0]}/{name}.tif"


def write_eurosat(path: Path, region: str, latitude: float, longitude: float) -> None:
    crs = CRS.from_epsg(32600 + WHERE[region][1])
    (x,), (y,) = transform("EPSG:4326", crs, [longitude], [latitude])
    pixels = levels(13, 64, 1000, np.uint16)
    write_raster(path, pixels, 32600 + WHERE[region][1], (x - 320, y + 320), 10)


def make_eurosat(root: Path) -> None:
    for name, where in EUROSAT.items():
        write_eurosat(root / eurosat_file(name), *where)


def write_hdf5(path: Path, name: str, **changed: np.ndarray | None) -> None:
    """Write a chip of GEO-Bench; `changed` replaces arrays by key, or leaves them out: None."""
    day, kind, level = (
        ("_2019-11-15", np.float32, 1000) if "cashew" in name else ("", np.int16, 100)
    )
    image, arrays = levels(12, 256, level, kind), {"Cloud Probability" + day: np.zeros((256, 256))}
    arrays |= {key + day: band for key, band in zip(KEYS, image, strict=True)}
    arrays |= {"label": halves(256)[0]} | changed
    with h5py.File(path, "w") as opened:
        opened.attrs["pickle"] = "b'not a pickle: opening it would fail'"
        for key, array in arrays.items():
            if array is not None:
                opened.create_dataset(key, data=array, compression="gzip")


def make_geobench(root: Path, name: str) -> None:
    folder = root / "segmentation_v1.0" / geobench.FOLDERS[name][0]
    folder.mkdir(parents=True)
    (folder / "default_partition.json").write_text(json.dumps(PARTITIONS[name]))
    for chip in [chip for chips in PARTITIONS[name].values() for chip in chips]:
        write_hdf5(folder / f"{chip}.hdf5", name)


def parts(folder: str, *away: str) -> dict[str, list[str]]:
    """Return the sides of a list, and each chip that is held out as its own region."""
    sides = dict(LISTS[folder])
    held = sides.pop("holdout", [])
    return sides | {f"holdout:{region}": [chip] for region, chip in zip(away, held, strict=True)}


CASES = [
    Case(
        sen1floods11.CARD, make_floods, parts("sen1floods11", "Bolivia"),
        [f"{HAND}/{part}/Spain_1_{part}.tif" for part in ("S2Hand", "LabelHand")],
    ),
    Case(
        burn_scars.CARD, make_burns, parts("burn_scars"),
        [f"training/{name}" for name in burn_files("T10SEJ.2018185.v1")],
    ),
    Case(
        reben.CARD, make_patches, parts("reBEN", "austria", "ireland"),
        [patch_file("BigEarthNet-S2", PATCH.format("04_62"), "B02"),
         patch_file("Reference_Maps", PATCH.format("04_62"), "reference_map")],
    ),
    *(
        Case(
            card, lambda root, name=name: make_geobench(root, name),
            {("val" if side == "valid" else side): c for side, c in PARTITIONS[name].items()},
            [f"segmentation_v1.0/{geobench.FOLDERS[name][0]}/{PARTITIONS[name]['train'][0]}.hdf5"],
            level=0.1 if name == "m_cashew_plantation" else 100.0,
        )
        for name, card in ((card.name, card) for card in (geobench.CASHEW, geobench.SA_CROP))
    ),
    Case(eurosat.CARD, make_eurosat, {}, [eurosat_file("AnnualCrop_1")]),
]  # fmt: skip
