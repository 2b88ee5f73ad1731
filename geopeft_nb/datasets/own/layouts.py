"""Which files belong together: by a pattern, by a table, or by the usual names."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.open_files import read_text, regular_file

RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2")
VECTORS = (".gpkg", ".geojson", ".shp", ".fgb")
#: Words of folders, and words that a file's name begins or ends with; case does not matter.
IMAGES = {*"image images img imgs imagery scene scenes sat merged s2hand".split()}
MASKS = {*"mask masks label labels lbl ann annotation annotations gt truth target targets".split()}
MASKS |= {"labelhand"}
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
DATE = r"(?:19|20)\d\d(?:[-_]?[01]\d[-_]?[0-3]\d|[0-3]\d\d)(?:T\d{6}Z?)?"
BAND = (
    r"(?:S[RT]_)?B\d{1,2}A?|(?:S[RT]_)?QA(?:_[A-Z]+)?|ST_[A-Z]+|SCL|FMASK|AOT|WVP|[SV][AZ]A|VV|VH"
    r"|COASTAL|BLUE|GREEN|RED|NIR|SWIR_?[12]|RED_?EDGE_?[123]|NDVI|DEM"
)
FILLERS = {"ground", "dir"}  # of ground_truth and img_dir
ASIDE = {"udm", "udm2", "tci", "pvi"}  # masks of clouds, and pictures
#: What a pattern may name -> the text that it stands for.
FIELDS = {
    **dict.fromkeys(("id", "region", "band", "label"), "[^/]{1,255}?"),
    "split": "|".join(SPLITS), "date": DATE,
}  # fmt: skip
#: More folders than this with one image each are names of images, not regions.
REGIONS = 8


@dataclass(frozen=True)
class Item:
    """One id: what becomes one or more chips.

    Attributes:
        name: Unique name.
        images: One entry a date, in time order: one stacked file, or one file a band.
        bands: What the names say of each file of a date, in that order, the same for all dates.
        dates: Day of each entry, None where it is not known.
        mask: File of labels, or None.
        label: Class or number of the whole image, from a table's column or its folder.
        region: Region, ``"all"`` without any.
        split: ``"train"``, ``"val"`` or ``"test"`` where the user has said so.
    """

    name: str
    images: tuple[tuple[Path, ...], ...]
    bands: tuple[str, ...] = ()
    dates: tuple[date | None, ...] = (None,)
    mask: Path | None = None
    label: str | float | None = None
    region: str = "all"
    split: str | None = None


@dataclass(frozen=True)
class _File:
    """A file and what its name says."""

    path: Path
    id: str  # the name without band and date
    split: str | None = None
    folders: tuple[str, ...] = ()  # the first is the region
    date: str = ""
    band: str = ""
    label: Any = None
    names: tuple[str, ...] = ()  # the name as it is, and without the band
    metres: int = 0  # as the names of Sentinel-2 say
    is_mask: bool = False

    @property
    def place(self) -> tuple[str | None, tuple[str, ...]]:
        return self.split, self.folders


def find_items(
    root: Path,
    images: str | None = None,
    masks: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    table: Any = None,  # noqa: ANN401 - a path, or a frame of pandas or geopandas
) -> tuple[list[Item], Path | None, list[str]]:
    """Find images and what labels them; no pixel is read.

    Args:
        root: A folder, or one image.
        images: Pattern of the images' paths below the root, with ``{id}``, ``{split}``,
            ``{region}``, ``{date}``, ``{band}`` or ``{label}``; all else is literal.
        masks: Pattern of the masks' paths. What both name has to agree; without ``{date}`` the
            dates of an id are frames of one item.
        labels: Instead of masks: a file of polygons, a raster that covers the images, or a folder
            of masks, relative to the root.
        table: CSV, or a frame, with the columns image, and where known mask, id, split, region,
            date, band and label; paths are relative to the root.

    Returns:
        The items by name; the file of polygons that labels them, or None; and notes.

    Raises:
        FileNotFoundError: The root or `labels` is not there.
        ValueError: Nothing fits, or it is not clear what belongs together; with a call to type.
    """
    if not root.exists():
        raise FileNotFoundError(f"root={str(root)!r} is not there.")
    base = root.parent if root.is_file() else root
    chosen = None if labels is None else base / labels
    if chosen is not None and not chosen.exists():
        raise FileNotFoundError(f"labels={str(labels)!r} is not there; it is looked for in {base}.")
    if chosen is not None and not chosen.is_dir():
        regular_file(chosen, chosen.parent)
    notes: list[str] = []
    vectors = _below(base, VECTORS) if chosen is None and not root.is_file() else []
    if table is not None:
        items, found = _from_table(table, base), []
    else:
        found = [root] if root.is_file() else _below(root, RASTERS)
        found = [path for path in found if path != chosen]
        if images is not None or masks is not None:
            items = _from_patterns(found, base, images or "{id}.tif", masks, notes)
        else:
            items = _from_names(found, base, chosen, bool(chosen or vectors), notes)
    if double := [name for name, n in Counter(item.name for item in items).items() if n > 1]:
        one, two, *_ = (item.images[0][0] for item in items if item.name == double[0])
        raise GeopeftError(
            f"{one} and {two} have the same name {double[0]!r}. Rename one, or take one out; or "
            "name what tells them apart with images='…{region}…{id}…'."
        )
    items.sort(key=lambda item: item.name)
    if items and chosen is not None and not chosen.is_dir():
        if chosen.suffix.lower() in (*VECTORS, ".json"):
            return items, chosen, notes
        return [replace(item, mask=chosen) for item in items], None, notes
    if any(item.mask or item.label is not None for item in items):
        if vectors and table is None:
            name = vectors[0].relative_to(base).as_posix()
            notes.append(f"{name} is not used, since there are masks; labels={name!r} takes it.")
        return items, None, notes
    if items and len(vectors) == 1:
        return items, vectors[0], notes
    if items and vectors:
        listed = ", ".join(path.relative_to(base).as_posix() for path in vectors)
        raise GeopeftError(f"{root} has several files of polygons: {listed}. Choose with labels=.")
    raise _refused(root, found)


def _below(folder: Path, endings: Iterable[str]) -> list[Path]:
    """List files with one of the endings, hidden ones left out and links out of it refused."""
    return sorted(
        regular_file(path, folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in endings
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _item(files: Sequence[_File], mask: Path | None = None) -> Item:
    """Make one item of the files of an id: dates in order, bands in order."""
    dates: dict[str, dict[str, _File]] = defaultdict(dict)
    for file in sorted(files, key=lambda file: -file.metres):  # the finest comes last, and stays
        other = dates[file.date].get(file.band)
        if other is not None and other.metres == file.metres:
            raise GeopeftError(
                f"{other.path} and {file.path} have the same id {file.id!r}, date and band. Rename "
                "one, take one out, or name what tells them apart with images='…{id}…'."
            )
        dates[file.date][file.band] = file
    days = sorted(dates, key=lambda text: (_day(text) or date.min, text))
    bands = sorted(dates[days[0]], key=lambda band: [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", band)
    ])  # fmt: skip
    if odd := [day for day in days if {*dates[day]} != {*bands}]:
        raise GeopeftError(
            f"{files[0].id!r} has the bands {', '.join(bands)} on {days[0] or 'no date'}, and "
            f"{', '.join(sorted(dates[odd[0]]))} on {odd[0] or 'no date'}. Add what is missing."
        )
    first = files[0]
    name = "/".join(filter(None, (first.split, *first.folders, first.id.strip("/"))))
    return Item(
        name or first.path.stem,
        tuple(tuple(dates[day][band].path for band in bands) for day in days),
        tuple(bands) if bands != [""] else (),
        tuple(_day(day) for day in days),
        mask,
        first.label,
        first.folders[0] if first.folders else "all",
        first.split,
    )


def _day(text: object) -> date | None:
    """Read 20210601, 2021-06-01, 2021152 or 20210601T101559; None for anything else."""
    digits = re.sub(r"\D", "", str(text)[:10].partition("T")[0])
    try:
        return datetime.strptime(digits, "%Y%m%d" if len(digits) == 8 else "%Y%j").date()
    except ValueError:
        return None


def _from_patterns(
    found: Sequence[Path], base: Path, images: str, masks: str | None, notes: list[str]
) -> list[Item]:
    """Find items by patterns; masks belong to images with which all common fields agree."""
    labels = _fitting(found, base, masks) if masks is not None else []
    taken = {file.path for file in labels}
    files = [file for file in _fitting(found, base, images) if file.path not in taken]
    common = [
        name for name in FIELDS if all("{" + name + "}" in (x or "") for x in (images, masks))
    ]

    def key(file: _File) -> Hashable:
        known = {"region": file.folders, "date": _day(file.date) or file.date}
        return tuple(known.get(name, getattr(file, name, None)) for name in common)

    mask_of: dict[Hashable, Path] = {}
    for file in labels:
        if (other := mask_of.setdefault(key(file), file.path)) != file.path:
            raise GeopeftError(f"masks={masks!r} fits both {other} and {file.path} for one image.")
    groups: dict[Hashable, list[_File]] = defaultdict(list)
    for file in files:
        groups[file.place, file.id, file.label, "date" in common and file.date].append(file)
    pairs = [(some, mask_of.get(key(some[0]))) for some in groups.values()]
    if masks is not None:
        used = {mask for _, mask in pairs}
        bare = [some[0].path for some, mask in pairs if mask is None]
        _leave_out(notes, bare, [file.path for file in labels if file.path not in used])
        pairs = [(some, mask) for some, mask in pairs if mask is not None]
    dated = "date" in common
    return [
        _item([replace(x, id=f"{x.id}_{x.date}") for x in some] if dated else some, mask)
        for some, mask in pairs
    ]


def _fitting(found: Sequence[Path], base: Path, pattern: str) -> list[_File]:
    """Return the files that a pattern fits, with what it says of them."""
    parts, seen = re.split(r"\{(\w*)\}", pattern), set()
    for index, field in enumerate(parts):
        if index % 2 == 0:
            parts[index] = re.escape(field)
            continue
        check_name(f"field of the pattern {pattern!r}", field, FIELDS)
        parts[index] = f"(?P={field})" if field in seen else f"(?P<{field}>{FIELDS[field]})"
        seen.add(field)
    compiled = re.compile("".join(parts), re.IGNORECASE)
    files = []
    for path in found:
        if match := compiled.fullmatch(path.relative_to(base).as_posix()):
            said = match.groupdict()
            files.append(_File(
                path, said.get("id", ""), SPLITS.get(said.get("split", "").lower()),
                (said["region"],) if "region" in said else (), said.get("date", ""),
                said.get("band", ""), said.get("label"),
            ))  # fmt: skip
    if not files:
        names = ", ".join(repr(path.relative_to(base).as_posix()) for path in found[:3])
        raise GeopeftError(
            f"The pattern {pattern!r} fits none of the {len(found)} rasters in {base}, such as "
            f"{names}. It is the whole path below the root, with {{id}} for what differs."
        )
    return files


def _from_table(table: Any, base: Path) -> list[Item]:  # noqa: ANN401 - as of find_items
    """Take items from a table's rows."""
    if isinstance(table, str | os.PathLike):
        path = base / table
        table = read_text(path, lambda text: pd.read_csv(StringIO(text), dtype=str))
    for column in ("image",):
        check_name("column of the table", column, [*table.columns])
    groups: dict[Hashable, list[_File]] = defaultdict(list)
    masks: dict[Hashable, Path] = {}
    for row in table.to_dict("records"):
        said = {name: value for name, value in row.items() if not pd.isna(value)}
        path = regular_file(base / str(said["image"]), base)
        split = str(said["split"]).lower() if "split" in said else None
        if split is not None:
            check_name("split of the table", split, SPLITS)
        file = _File(
            path, str(said.get("id", path.relative_to(base).with_suffix("").as_posix())),
            SPLITS[split] if split else None, (str(said["region"]),) if "region" in said else (),
            str(said.get("date", "")), str(said.get("band", "")), said.get("label"),
        )  # fmt: skip
        groups[file.place, file.id].append(file)
        if "mask" in said:
            masks[file.place, file.id] = regular_file(base / str(said["mask"]), base)
    return [_item(files, masks.get(key)) for key, files in groups.items()]


def _from_names(
    found: Sequence[Path], base: Path, chosen: Path | None, others: bool, notes: list[str]
) -> list[Item]:
    """Find items by the usual words of folders and names."""
    drawn = chosen if chosen is not None and chosen.is_dir() else None
    if drawn is not None:
        found = [*found, *(path for path in _below(drawn, RASTERS) if path not in found)]
    trees = drawn is None and any(
        _said(part) & MASKS for path in found for part in path.relative_to(base).parts[:-1]
    )
    files = [file for path in found if (file := _read_name(path, base, drawn, trees))]
    images, masks = ([x for x in files if x.is_mask == is_mask] for is_mask in (False, True))
    for some in (images, masks):
        seen: dict[Hashable, Path] = {}
        for file in some:
            if (other := seen.setdefault((file.place, file.names[0]), file.path)) != file.path:
                one, two = (path.relative_to(base) for path in (other, file.path))
                raise GeopeftError(
                    f"{one} and {two} have the same name {file.names[0]!r}, so it is not clear "
                    "which image belongs to which mask. Rename one, or take one out; or say which "
                    "are meant with images='…{id}…', masks='…{id}…'."
                )
    if masks and not (chosen is not None and chosen.is_file()):
        pairs = _match(images, masks)
        used = {path for files, mask in pairs for path in (mask, *(file.path for file in files))}
        left = ([file.path for file in some if file.path not in used] for some in (images, masks))
        _leave_out(notes, *left)
        items = [_item(files, mask) for files, mask in pairs]
    else:
        items = _without_masks(images, not others, notes)
    counts = Counter(item.region for item in items)
    if len(counts) > REGIONS and max(counts.values()) == 1:
        items = [replace(item, region="all") for item in items]
    return items


def _said(folder: str) -> set[str]:
    """Return the words of a folder's name if it says what is in it, and nothing else."""
    words = {*re.split(r"[._ -]+", folder.lower())}
    usual = IMAGES | MASKS | {*SPLITS}
    return words & usual if words <= usual | FILLERS else set()


def _read_name(path: Path, base: Path, drawn: Path | None, trees: bool) -> _File | None:
    """Read what the folders and the name of a file say; None if it is no image and no mask."""
    inside = drawn is not None and path.is_relative_to(drawn)
    parents = path.relative_to(drawn if drawn is not None and inside else base).parts[:-1]
    safe = next((n for n, part in enumerate(parents) if part.upper().endswith(".SAFE")), None)
    words = {word for part in parents for word in _said(part)}
    folders = tuple(part for part in parents[:safe] if not _said(part))
    tokens, ends = re.split(r"([._ -]+)", path.stem), set()
    while tokens and tokens[0].lower() in IMAGES | MASKS:
        ends.add(tokens[0].lower())
        del tokens[:2]
    while tokens and tokens[-1].lower() in IMAGES | MASKS | (FILLERS if ends else set()):
        ends.add(tokens[-1].lower())
        del tokens[-2:]
    name = "".join(tokens)
    if (tokens and tokens[-1].lower() in ASIDE) or (safe is not None and "IMG_DATA" not in parents):
        return None
    is_mask = inside if drawn is not None else bool((words if trees else ends) & MASKS)
    found = None if is_mask else re.search(
        rf"(?:^|[._ -])({BAND})(?:[._ -](\d\d)m)?$", name, re.IGNORECASE
    )  # fmt: skip
    known = name[: found.start()] if found else name
    days = [x[0] for x in re.finditer(rf"(?<!\d){DATE}(?!\d)", known) if _day(x[0])]
    bare = known
    for day in days:
        bare = bare.replace(day, "")
    above = ""
    if not known and folders:  # the folder names the image
        folders, above = folders[:-1], folders[-1] + "/"
    return _File(
        path, "", next((SPLITS[word] for word in words if word in SPLITS), None), folders,
        days[0] if days else "", found[1].upper() if found else "",
        names=(above + name, above + known, above + bare.strip("._ -")),
        metres=int(found[2] or 0) if found else 0, is_mask=is_mask,
    )  # fmt: skip


def _match(images: Sequence[_File], masks: Sequence[_File]) -> list[tuple[list[_File], Path]]:
    """Match masks to images: by the whole name, without the band, without the date, or alone.

    First within a folder, then anywhere if one side has no folders.
    """
    flat = not any(any(file.place) for file in masks) or not any(file.folders for file in images)
    rules: list[Callable[[_File], Hashable]] = [
        *(lambda file, n=n: (file.place, file.names[n]) for n in range(3)),
        *(lambda file, n=n: file.names[n] for n in range(3) if flat),
        lambda file: file.path.parent,
    ]
    pairs: list[tuple[list[_File], Path]] = []
    used: set[Path] = set()
    for level, rule in enumerate(rules):
        groups: dict[Hashable, tuple[list[_File], list[_File]]] = defaultdict(lambda: ([], []))
        for file in (*images, *masks):
            if file.path not in used:
                groups[rule(file)][file.is_mask].append(file)
        for some, one in groups.values():
            alike = {(file.place, file.names[2]) for file in some}
            differ = {(file.date, file.band, file.metres) for file in some}
            if len(one) == 1 and len(alike) == 1 and len(differ) == len(some):
                used |= {one[0].path, *(file.path for file in some)}
                name = 2 if rule is rules[-1] else level % 3
                pairs.append(([replace(file, id=file.names[name]) for file in some], one[0].path))
    return pairs


def _without_masks(images: Sequence[_File], by_folder: bool, notes: list[str]) -> list[Item]:
    """Make items of images alone, one file a band or stacked, labelled by their folder if any."""
    groups: dict[Hashable, list[_File]] = defaultdict(list)
    for file in images:
        groups[file.place, file.names[1]].append(file)
    items = []
    classes = {file.path.parent.name for file in images}
    plain = all(file.folders and file.folders[-1] == file.path.parent.name for file in images)
    by_folder = by_folder and plain and len(classes) > 1
    for files in groups.values():
        stacked = len({file.band for file in files}) == 1
        for some in ([file] for file in files) if stacked else [files]:
            item = _item([replace(file, id=file.names[0 if stacked else 1]) for file in some])
            if by_folder:
                region = item.region if len(some[0].folders) > 1 else "all"
                item = replace(item, label=some[0].folders[-1], region=region)
            items.append(item)
    if by_folder:
        listed = ", ".join(sorted(classes))
        notes.append(f"There are no masks: the label of an image is its folder ({listed}).")
    return items


def _leave_out(notes: list[str], images: Sequence[Path], masks: Sequence[Path]) -> None:
    for left, kind, other in ((images, "image", "mask"), (masks, "mask", "image")):
        if left:
            shown = ", ".join(path.name for path in left[:3]) + (", …" if len(left) > 3 else "")
            notes.append(f"Left out, {kind} without {other}: {len(left)} ({shown}).")


def _refused(root: Path, found: Sequence[Path]) -> GeopeftError:
    """Say what was seen, and the call to type."""
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in found:
        seen[path.parent.relative_to(root).as_posix(), path.suffix].append(path.name)
    listed = "; ".join(
        f"{folder}/: {len(names)} {ending} ({', '.join(names[:3])}{', …' if names[3:] else ''})"
        for (folder, ending), names in seen.items()
    )
    return GeopeftError(
        f"No image in {root} has a mask or another label. Seen: {listed or 'no raster'}. Say what "
        f'is what: gp.load_data("folder", root={str(root)!r}, images="images/{{id}}.tif", '
        'masks="masks/{id}.tif")'
    )
