"""Which file is an image and which its mask, from the names of folders and files alone."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from geopeft_nb.errors import GeopeftError
from geopeft_nb.open_files import regular_file

RASTERS = (".tif", ".tiff")
VECTORS = (".gpkg", ".geojson", ".shp", ".fgb")
#: Names of folders, and ends of file names after ``_``, ``-`` or ``.``; case does not matter.
IMAGE_WORDS = ("image", "images", "img", "imgs", "imagery", "scene", "scenes", "merged", "s2hand")
MASK_WORDS = (
    "mask", "masks", "label", "labels", "annotation", "annotations", "gt", "ground_truth",
    "truth", "target", "targets", "labelhand",
)  # fmt: skip
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
#: The region of files that lie in no subfolder of their own.
EVERYWHERE = "all"
LAYOUTS = (
    "images/ and masks/ with the same file names; or a.tif beside a_mask.tif or a_label.tif; each "
    "of them also once per region, in subfolders with the regions' names; or images beside one "
    "file of polygons (.gpkg, .geojson, .shp)"
)


@dataclass(frozen=True)
class Pair:
    """An image and what labels it.

    Attributes:
        image: GeoTIFF.
        mask: GeoTIFF of class numbers, or None where polygons label the image.
        region: Subfolder with the region's name, or ``"all"``.
        name: Unique name: the path below the root without suffix.
    """

    image: Path
    mask: Path | None
    region: str
    name: str


@dataclass(frozen=True)
class _File:
    path: Path
    folders: tuple[str, ...]  # below the root, without images/, masks/ and train/, val/, test/
    stem: str  # without _mask and the like
    is_mask: bool


def find_pairs(
    root: Path, labels: str | os.PathLike[str] | None
) -> tuple[list[Pair], Path | None, list[str]]:
    """Find images and their labels below a folder.

    Args:
        root: A folder, or one image.
        labels: What labels them: a file of polygons, a raster that covers all images, or a folder
            of masks; relative to the root. None looks for it.

    Returns:
        The pairs by name; the file of polygons, or None; and notes on what is left over.

    Raises:
        FileNotFoundError: The root or `labels` is not there.
        ValueError: No images, no labels, or several files that could be meant.
    """
    if not root.exists():
        raise FileNotFoundError(f"root={str(root)!r} is not there.")
    base = root.parent if root.is_file() else root
    chosen = base / labels if labels is not None else None
    if chosen is not None and not chosen.exists():
        raise FileNotFoundError(f"labels={labels!r} is not there; it is looked for in {base}.")
    if chosen is not None and not chosen.is_dir():
        regular_file(chosen, chosen.parent)
    if root.is_file() and chosen is None:
        raise GeopeftError(f"root={str(root)!r} is one image; say what labels it with labels=.")
    found = [root] if root.is_file() else _below(root, RASTERS)
    if chosen is not None and chosen.is_dir():
        found += [path for path in _below(chosen, RASTERS) if path not in found]
    files = [_sort(path, base, chosen) for path in found if path != chosen]
    images = [file for file in files if not file.is_mask]
    if not images:
        raise GeopeftError(
            f"{root} has no images: {_listed(base, found)}. GeoTIFFs (.tif) are needed, for "
            f"example {LAYOUTS}."
        )
    notes = _splits_note(found, base)
    if chosen is not None and chosen.is_file():
        is_vector = chosen.suffix.lower() in (*VECTORS, ".json")
        pairs = [_pair(image, None if is_vector else chosen, base) for image in images]
        return _unique(pairs), chosen if is_vector else None, notes
    masks = [file for file in files if file.is_mask]
    vectors = _below(base, VECTORS) if chosen is None else []
    if masks:
        pairs, left = _match(images, masks, base)
        notes += left
        if vectors:
            name = vectors[0].relative_to(base).as_posix()
            notes.append(f"{name} is not used, since there are masks; labels={name!r} takes it.")
        if pairs:
            return _unique(pairs), None, notes
    elif len(vectors) == 1:
        return _unique([_pair(image, None, base) for image in images]), vectors[0], notes
    elif vectors:
        names = ", ".join(path.relative_to(base).as_posix() for path in vectors)
        raise GeopeftError(f"{root} has several files of polygons: {names}. Choose with labels=.")
    raise GeopeftError(
        f"No image in {root} has a mask: {_listed(base, found)}. Known are {LAYOUTS}. Anything "
        "else: labels= with the file of polygons, the label raster or the folder of masks."
    )


def _below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """List files with one of the suffixes, hidden ones left out and links out of it refused."""
    return sorted(
        regular_file(path, folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _sort(path: Path, base: Path, chosen: Path | None) -> _File:
    """Tell an image from a mask, and strip what says so from its name."""
    inside = chosen is not None and chosen.is_dir() and path.is_relative_to(chosen)
    top = chosen if inside and chosen is not None else base
    folders = [part.lower() for part in path.relative_to(top).parts[:-1]]
    last = re.split(r"[._-]", path.stem.lower())[-1]
    if chosen is not None:
        is_mask = inside or (chosen.is_file() and last in MASK_WORDS)
    elif any(part in (*MASK_WORDS, *IMAGE_WORDS) for part in folders):
        is_mask = any(part in MASK_WORDS for part in folders)
    else:
        is_mask = last in MASK_WORDS
    stem = path.stem
    if last in (MASK_WORDS if is_mask else IMAGE_WORDS):
        stem = stem[: len(stem) - len(last)].rstrip("._-")
    kept = tuple(
        part
        for part in path.relative_to(top).parts[:-1]
        if part.lower() not in (*MASK_WORDS, *IMAGE_WORDS, *SPLITS)
    )
    return _File(path, kept, stem, is_mask)


def _match(images: list[_File], masks: list[_File], base: Path) -> tuple[list[Pair], list[str]]:
    """Match masks to images: by folder and stem, by stem, or as the only two of a folder."""
    for files in (images, masks):
        _refuse_doubles(files, base)
    flat = not any(file.folders for file in masks) or not any(file.folders for file in images)
    alone = [
        folder
        for folder in {file.folders for file in images}
        if all(sum(file.folders == folder for file in files) == 1 for files in (images, masks))
    ]
    rules: list[Callable[[_File], Hashable]] = [lambda file: (file.folders, file.stem)]
    if flat:
        rules.append(lambda file: file.stem)
    rules.append(lambda file: file.folders if file.folders in alone else file.path)
    partner: dict[Path, Path] = {}
    for rule in rules:
        groups: dict[Hashable, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
        for file in (*images, *masks):
            if file.path not in partner:
                groups[rule(file)][file.is_mask].append(file.path)
        for two in groups.values():
            if len(two[0]) == len(two[1]) == 1:
                partner |= {two[0][0]: two[1][0], two[1][0]: two[0][0]}
    pairs = [_pair(file, partner[file.path], base) for file in images if file.path in partner]
    notes = []
    for files, kind, other in ((images, "image", "mask"), (masks, "mask", "image")):
        if left := [file.path.name for file in files if file.path not in partner]:
            notes.append(
                f"Left out, {kind} without {other}: {len(left)} ({', '.join(left[:3])}"
                f"{', …' if len(left) > 3 else ''})."
            )
    return pairs, notes


def _refuse_doubles(files: list[_File], base: Path) -> None:
    seen: dict[tuple[tuple[str, ...], str], Path] = {}
    for file in files:
        key = (file.folders, file.stem)
        if key in seen:
            one, two = (path.relative_to(base) for path in (seen[key], file.path))
            raise GeopeftError(
                f"{one} and {two} have the same name {file.stem!r}, so it is not clear which image "
                "belongs to which mask. Rename one, or take one out of the folder."
            )
        seen[key] = file.path


def _pair(image: _File, mask: Path | None, base: Path) -> Pair:
    name = "/".join((*image.folders, image.stem or image.path.stem))
    return Pair(image.path, mask, image.folders[0] if image.folders else EVERYWHERE, name)


def _unique(pairs: list[Pair]) -> list[Pair]:
    """Refuse two images of one name, since chips are known by it."""
    count = Counter(pair.name for pair in pairs)
    if doubles := [pair for pair in pairs if count[pair.name] > 1]:
        one, two = (pair.image for pair in doubles if pair.name == doubles[0].name)
        raise GeopeftError(
            f"{one} and {two} have the same name {doubles[0].name!r}. Rename one, or take one out."
        )
    return sorted(pairs, key=lambda pair: pair.name)


def _splits_note(found: list[Path], base: Path) -> list[str]:
    parts = {part for path in found if path.is_relative_to(base)
             for part in path.relative_to(base).parts[:-1]}  # fmt: skip
    names = sorted(part for part in parts if part.lower() in SPLITS)
    if not names:
        return []
    return [
        f"Folders {', '.join(names)} were put together and split anew by place: whether they keep "
        "ground apart is not known."
    ]


def _listed(base: Path, found: list[Path]) -> str:
    """Say what a folder holds."""
    names = [path.relative_to(base).as_posix() for path in found if path.is_relative_to(base)]
    if not names:
        kinds = Counter(path.suffix or "no suffix" for path in base.rglob("*") if path.is_file())
        return "it is empty" if not kinds else "found " + ", ".join(
            f"{count} files with {kind}" for kind, count in kinds.most_common(4)
        )  # fmt: skip
    return f"found {len(names)} GeoTIFFs ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
