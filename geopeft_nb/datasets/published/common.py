"""One way to load what was published: which chips, what is known of each, and how to read it.

Chips are kept decoded on disk: decoding a compressed GeoTIFF takes longer than training should.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from geopeft_nb.archives import extract
from geopeft_nb.datasets.base import Bounds, Chip, Reading
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData, choose_bands
from geopeft_nb.datasets.split import SIDES, choose_regions, published_split, split_regions
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import FileEntry, cache_folder, check_space, checksum_of, fetch, find_dataset
from geopeft_nb.open_files import open_raster
from geopeft_nb.writing import written_beside

#: Rows and columns, as numpy, rasterio and h5py take them.
Window = tuple[slice, slice]
#: Stands for no data in some files, beside NaN and what their header names.
NO_DATA = -9999.0

_COMMIT = "5fe258d428d2a8500dcfc376ba1b72051a509160"
_SOURCE = f"https://raw.githubusercontent.com/IBM/peft-geofm/{_COMMIT}/datasets_splits"

#: List, named as in the authors' repository -> its sha256; of each data set training, validation,
#: test and what is held out, in this order.
LISTS = {
    "sen1floods11/train_data": "899ee084e400fefdbe139a52aa3d292072edea4c3695afcc5a5a0383af5ff69d",
    "sen1floods11/valid_data": "45eca7a5b701ac3e8f8b2fd5a52ab443cf6be0d3649116a867fc2c1fdbad1541",
    "sen1floods11/test_data": "b707770200485f909f8e0afcfb06b43cf9137ebca7b09460797a828effb9b42e",
    "sen1floods11/bolivia_data": "6b8239d95214af1c9ecfb70dec058872e7dcf831591bff80ff4d61a643e06434",
    "burn_scars/train_data": "f1dca5c488c7a7451f3aa82f20677c18b3b22a2d96b59d68215494e3dba6f393",
    "burn_scars/val_data": "50a98be7974a2fec73af62b5f54063d938bcfe93cd9802b90eb33eb78f4d7f3e",
    "burn_scars/test_data": "c61ddcb5a434da3f5e63edd7c87549af104c6cc69345876a8ed770844bab1788",
    "reBEN/reBEN_7k/train": "74a32f633a67e33688d89c2b2518f1c3c483f32b891325d905cac69246da83d7",
    "reBEN/reBEN_7k/val": "9aaf30c26a8df5b7705199739294f0ceedd1a073db2dbed0070715be9f974fe5",
    "reBEN/reBEN_7k/test": "c0460af179f8ceb77a5ccf78d49fe0dd63d80d41197d1b40cdd99a70fc2f69fc",
    "reBEN/reBEN_7k/ood": "c9964324e839eb4a1f89e86fecd59958d3490e2a15686b73966a423c47bc51cf",
}


def list_entries(folder: str) -> list[FileEntry]:
    """Describe the lists of a data set; mirrors have them below ``peft_geofm_splits/``.

    Args:
        folder: The first part of their names in `LISTS`.
    """
    return [
        FileEntry(
            f"peft_geofm_splits/{name}.txt", sha256=digest, url=f"{_SOURCE}/{name}.txt",
            licence="Apache-2.0",
        )
        for name, digest in LISTS.items()
        if name.startswith(f"{folder}/")
    ]  # fmt: skip


def listed(folder: str, download: bool = True) -> Iterator[tuple[str, str]]:
    """Yield side and name of each chip in published lists, in their order.

    Args:
        folder: The first part of their names in `LISTS`, for example ``"burn_scars"``.
        download: Whether lists may be downloaded.

    Raises:
        FileNotFoundError: One is not on this machine and cannot be downloaded.
        ValueError: A file is not the published one.

    Source: https://github.com/IBM/peft-geofm (Apache-2.0), its folder datasets_splits.
    """
    for side, entry in zip((*SIDES, "holdout"), list_entries(folder), strict=False):
        for name in fetch(entry, download).read_text(encoding="utf-8").split():
            yield side, name


def read_chip(
    files: Sequence[Path], indices: Sequence[int], window: Window, target: np.ndarray | None = None
) -> Reading:
    """Read a window of the first file, an image, and of the last, a mask, if no target is given."""
    image, crs, bounds = read_raster(files[0], indices, window)
    if target is None:
        target = read_raster(files[-1], [0], window)[0][0]
    return Reading(image, target, crs, bounds)


def load_published(
    request: DataRequest, card: DataCard, find: Callable[[DataRequest], Iterable[tuple[str, Chip]]]
) -> GeoData:
    """Load a published data set.

    Args:
        request: What was asked for.
        card: Card of the variant that was asked for.
        find: Gives whole chips and their sides, ``"train"``, ``"val"``, ``"test"``, ``"holdout"``,
            or ``"all"`` for a split by place. Their `read` takes their files, indices of bands and
            a window. Nothing is downloaded before it is called.

    Returns:
        The data, images divided by the card's `scale`.

    Raises:
        ValueError: A band, region or size that there is not; a chip on two sides.
        FileNotFoundError: Files of listed chips are not there.
    """
    indices, bands = choose_bands(request.bands, card)
    choose_regions(card, request)
    size = request.size or card.size
    if size != card.size and (card.whole or card.size % size):
        allowed = f"{card.size}{'' if card.whole else ' or a divisor of it'}"
        raise GeopeftError(f"size of {card.name} must be {allowed}, got {size}.")
    found = [*find(request)]
    check_complete(card, [chip for _, chip in found])

    def reading(chip: Chip, top: int, left: int) -> Reading:
        window = np.s_[top : top + size, left : left + size]
        decode = partial(chip.read, chip.files, indices, window)
        if request.cache and card.compressed:
            raw = kept(entry(card.name, (chip.name, window, card.task, bands), chip.files), decode)
        else:
            raw = decode()
        if raw.image.shape != (len(bands), size, size) or (raw.target % 1).any():
            raise GeopeftError(
                f"The files of {chip.name!r} are not the published ones: {raw.image.shape}, or "
                "labels that are not whole numbers. Restore them."
            )
        image = raw.image.astype(np.float32) / np.float32(card.scale)
        return raw._replace(image=image, target=raw.target.astype(np.int64))

    def cut(chip: Chip) -> Iterator[Chip]:
        for top, left in product(range(0, card.size, size), repeat=2):
            name = chip.name if size == card.size else f"{chip.name}-{top}-{left}"
            yield replace(chip, name=name, read=partial(reading, chip, top, left))

    sides: dict[str, list[Chip]] = {side: [] for side in (*SIDES, "holdout", "all")}
    for side, chip in found:
        sides[side] += cut(chip)
    if sides["all"]:
        return split_regions(sides["all"], request, card, bands, size)
    return published_split(sides, request, card, bands, size)


def entry(name: str, key: object, sources: Sequence[Path] = ()) -> Path:
    """Return where a decoded chip is kept, below ``chips/`` in the cache folder.

    Args:
        name: Name of the data set.
        key: Whatever decides what the chip holds: its name, square and bands.
        sources: The files that it was decoded from. Their checksums are part of the key, and no
            times: the checksum of 2 MB takes a millisecond, decoding them fifty.
    """
    content = repr((key, [checksum_of(path) for path in sources]))
    return cache_folder() / "chips" / name / f"{hashlib.sha256(content.encode()).hexdigest()}.npz"


def kept(file: Path, decode: Callable[[], Reading]) -> Reading:
    """Return pixels and where they lie as `decode` gave them, now or earlier.

    A disk without room, or a folder that cannot be written, costs time and no training run: the
    chip is decoded at each reading, and a warning says so.

    Args:
        file: From `entry`.
        decode: Reads the chip from its own files.
    """
    try:
        with np.load(file) as stored:
            crs, bounds = json.loads(stored["about"].item())
            return Reading(stored["image"], stored["target"], crs, bounds and tuple(bounds))
    except Exception:  # none is kept, or a damaged one, which has many errors: decode it
        reading = decode()
    try:
        check_space(file.parent, reading.image.nbytes, "A decoded chip")
        with written_beside(file) as written:
            about = json.dumps([reading.crs, reading.bounds])
            np.savez(written, image=reading.image, target=reading.target, about=about)
    except OSError:
        warnings.warn(  # the same words for each chip, so that Python shows them once
            f"Decoded chips are not kept in {file.parent}: it cannot be written or the disk is "
            "full. Free space, set GEOPEFT_CACHE to another folder, or load_data(cache=False).",
            stacklevel=2,
        )
    return reading


def check_complete(card: DataCard, chips: Sequence[Chip]) -> None:
    """Refuse a chip on two sides, and chips without their files, before anything is read.

    Folders are listed instead of files looked for: that counts on a shared drive.
    """
    counts = Counter(chip.name for chip in chips)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise GeopeftError(f"{card.name} lists {len(twice)} chips twice, {twice[0]!r}: restore it.")
    files = {path for chip in chips for path in chip.files}
    folders = {path.parent for path in files}
    there = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    if absent := files - there:
        raise FileNotFoundError(
            f"{card.title} lists {len(chips):,} chips, and {len(absent):,} of their files are not "
            f"there, for example {min(absent)}. Complete the folder."
        )


def unpack(
    name: str,
    parts: Sequence[FileEntry],
    request: DataRequest,
    wanted: Callable[[str], bool] = bool,
) -> Path:
    """Find a folder, or fetch its archive and extract it into the cache.

    Args:
        name: Folder below a mirror or the cache.
        parts: The archive, or what it was cut into.
        request: With the user's own root, which goes before.
        wanted: Says which files are extracted, see `extract`.
    """
    if folder := find_dataset(name, request.root):
        return folder
    files = [fetch(entry, request.download) for entry in parts]
    return extract(files, cache_folder() / name, wanted)


def files_in(folder: Path, pattern: str, card: DataCard) -> list[Path]:
    """List the files by which a data set's folder is told from another one, in order.

    Raises:
        FileNotFoundError: There are none.
    """
    if found := sorted(folder.glob(pattern)):
        return found
    raise FileNotFoundError(f"{folder} has no {pattern}, as {card.title} has: see {card.homepage}.")


def read_raster(
    path: Path, indices: Sequence[int], window: Window
) -> tuple[np.ndarray, str | None, Bounds | None]:
    """Read a window of some bands of a GeoTIFF.

    Args:
        path: The file.
        indices: Bands to read, from 0.
        window: Rows and columns.

    Returns:
        The pixels (bands, rows, columns), where those of floats that are not known are 0; the
        coordinate reference system; and the bounds of the window.
    """
    with open_raster(path) as raster:
        image = raster.read([index + 1 for index in indices], window=window)
        if image.dtype.kind == "f":
            image[np.isnan(image) | np.isin(image, [NO_DATA, raster.nodata or 0])] = 0
        return image, raster.crs and raster.crs.to_string(), raster.window_bounds(window)
