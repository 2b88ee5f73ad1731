"""Which files belong together: by a pattern, by a table, or by the usual names."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd

from geopeft_nb.datasets.own.items import File, Item, alike, day, group
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.open_files import read_text, regular_file

RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2")
VECTORS = (".gpkg", ".geojson", ".shp", ".fgb")
#: Words of folders and of names; case does not matter.
IMAGES = "image|images|img|imgs|imagery|scene|scenes|sat|rgb|merged|s2hand|dir|png|tif|tiff"
MASKS = (
    "mask|masks|msk|label|labels|lbl|ann|annotation|annotations|gt|ground_truth|truth|target"
    "|targets|seg|reference|labelhand"
)
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
DATE = r"(?:19|20)\d\d(?:[-_]?[01]\d[-_]?[0-3]\d|[0-3]\d\d)(?:T\d{6}Z?)?"
BAND = (
    r"(?:S[RT]_)?B\d{1,2}A?|(?:S[RT]_)?B?QA(?:_[A-Z]+)?|ST_[A-Z]+|SCL|FMASK|AOT|WVP|[SV][AZ]A|VV|VH"
    r"|COASTAL|BLUE|GREEN|RED|NIR|SWIR_?[12]|RED_?EDGE_?[123]|NDVI|DEM"
)
#: Folders of a Sentinel-2 product, and what lies beside its bands or Planet's and Landsat's.
PRODUCT = r".*\.SAFE|GRANULE|IMG_DATA|R\d0m"
ASIDE = r"(^|[._-])(udm2?|tci|pvi|ql|thumb_\w+)([._-]\d\dm)?$"
#: What a pattern may name -> the text that it stands for.
FIELDS = {
    **dict.fromkeys(("id", "region", "band", "label"), "[^/]{1,255}?"),
    "split": "|".join(SPLITS), "date": DATE,
}  # fmt: skip
#: More folders than this with one image each are names of images, not regions.
REGIONS = 8


def find_items(
    root: Path, images: str | None = None, masks: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    table: Any = None,  # noqa: ANN401 - a path, or a frame of pandas or geopandas
) -> tuple[list[Item], Path | None, list[str]]:  # fmt: skip
    """Find images and what labels them; no pixel is read.

    Args:
        root: A folder, or one image.
        images: Pattern of the images' paths below the root, with ``{id}``, ``{split}``,
            ``{region}``, ``{date}``, ``{band}`` or ``{label}``; all else is literal.
        masks: Pattern of the masks' paths. What both name has to agree; without ``{date}`` the
            dates of an id are frames of one item.
        labels: Instead of masks: a file of polygons, or a raster that covers the images, relative
            to the root.
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
    one = None if labels is None else _there("labels", labels, base)
    vectors = _below(base, VECTORS) if one is None and root.is_dir() else []
    found = [root] if root.is_file() else [x for x in _below(root, RASTERS) if x != one]
    notes: list[str] = []
    if masks is not None and images is None:
        raise GeopeftError(f"masks={masks!r} needs images='…', the pattern of what they label.")
    if table is not None:
        items = _from_table(table, base, notes)
    elif images is not None:
        items = _by_patterns(found, base, images, masks, notes)
    else:
        items = _by_names(found, base, one, bool(vectors), notes)
    if double := [name for name, n in Counter(item.name for item in items).items() if n > 1]:
        first, other, *_ = (item.images[0][0] for item in items if item.name == double[0])
        raise alike(first, other)
    items.sort(key=lambda item: item.name)
    if one is not None and one.suffix.lower() not in (*VECTORS, ".json"):
        items = [replace(item, mask=one) for item in items]
    if any(item.mask or item.label is not None for item in items):
        if vectors and table is None:
            name = vectors[0].relative_to(base).as_posix()
            notes.append(f"{name} is not used, since there are masks; labels={name!r} takes it.")
        return items, None, notes
    if items and len(vectors) > 1:
        listed = ", ".join(path.relative_to(base).as_posix() for path in vectors)
        raise GeopeftError(f"{root} has several files of polygons: {listed}. Choose with labels=.")
    polygons = one or next(iter(vectors), None)
    if items and polygons is not None:
        return items, polygons, notes
    raise _unlabelled(root, found)


def _there(option: str, name: str | os.PathLike[str], base: Path) -> Path:
    """Return the path of a file that an option names."""
    if not (path := base / name).exists():
        raise FileNotFoundError(f"{option}={str(name)!r} is not there; it is looked for in {base}.")
    if path.is_dir():
        raise GeopeftError(
            f"{option}={str(name)!r} is a folder, and a file is needed. Of a folder of masks say "
            f"images='…/{{id}}.tif', masks='{path.name}/{{id}}.tif'."
        )
    return regular_file(path, path.parent)


def _below(folder: Path, endings: Iterable[str]) -> list[Path]:
    """List files with one of the endings, hidden ones left out and links out of it refused."""
    return sorted(
        regular_file(path, folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in endings
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _by_patterns(
    found: Sequence[Path], base: Path, images: str, masks: str | None, notes: list[str]
) -> list[Item]:
    """Find items by the patterns of images and of masks; what fits both is a mask."""
    drawn = _fitting(found, base, masks, True) if masks is not None else []
    taken = {file.path for file in drawn}
    files = [file for file in _fitting(found, base, images, False) if file.path not in taken]
    return group([*files, *drawn], notes)


def _fitting(found: Iterable[Path], base: Path, pattern: str, is_mask: bool) -> list[File]:
    """Return the files that a pattern fits, with what it says of them."""
    parts = re.split(r"\{(\w*)\}", pattern)
    for index, part in enumerate(parts):
        if index % 2:
            check_name(f"field of the pattern {pattern!r}", part, FIELDS)
            again = part in parts[1:index:2]
            parts[index] = f"(?P={part})" if again else f"(?P<{part}>{FIELDS[part]})"
        else:
            parts[index] = re.escape(part)
    fits = re.compile("".join(parts), re.IGNORECASE).fullmatch
    names = {path: path.relative_to(base).as_posix() for path in found}
    files = []
    for path, name in names.items():
        if match := fits(name):
            said = match.groupdict()
            if "label" in said:
                said["id"] = f"{said['label']}/{said.get('id', '')}"
            files.append(_told(path, said, is_mask))
    if not files:
        shown = ", ".join(map(repr, [*names.values()][:3]))
        raise GeopeftError(
            f"The pattern {pattern!r} fits none of the {len(names)} rasters in {base}, such as "
            f"{shown}. It is a whole path below the root, with {{id}} for what differs."
        )
    return files


def _told(path: Path, said: Mapping[str, Any], is_mask: bool = False) -> File:
    """Take what a pattern or a row says of a file."""
    said = {**dict.fromkeys(FIELDS, ""), **said}
    name, when, split = str(said["id"]), str(said["date"]), str(said["split"]).lower()
    label = None if said["label"] == "" else said["label"]
    if split:
        check_name("split", split, SPLITS)
    return File(
        path, (f"{name}_{when}".strip("_"), name, name, name), SPLITS.get(split),
        tuple(filter(None, [str(said["region"])])), when, str(said["band"]), label, 0, is_mask,
    )  # fmt: skip


def _from_table(table: Any, base: Path, notes: list[str]) -> list[Item]:  # noqa: ANN401
    """Take items from the rows of a table."""
    if isinstance(table, str | os.PathLike):
        texts = dict.fromkeys({"image", "mask", *FIELDS} - {"label"}, str)
        table = read_text(
            _there("table", table, base), lambda text: pd.read_csv(StringIO(text), dtype=texts)
        )
    check_name("column of the table", "image", [*table.columns])
    files, masks = [], {}
    for row in table.to_dict("records"):
        said = {name: value for name, value in row.items() if not pd.isna(value)}
        path = regular_file(base / said["image"], base)
        said.setdefault("id", path.relative_to(base).with_suffix("").as_posix())
        files.append(_told(path, said))
        if "mask" in said:  # for all dates of the id
            mask = regular_file(base / said["mask"], base)
            masks[mask, said["id"]] = _told(mask, said | {"date": ""}, True)
    return group([*files, *masks.values()], notes)


def _by_names(
    found: Iterable[Path], base: Path, one: Path | None, polygons: bool, notes: list[str]
) -> list[Item]:
    """Find items by the usual words of folders and names; `one` file labels all, or polygons."""
    parts = {path: path.relative_to(base).parts[:-1] for path in found}
    trees = any(_said(part) & {*MASKS.split("|")} for some in parts.values() for part in some)
    files = [x for path, some in parts.items() if (x := _read_name(path, some, trees))]
    files = [file for file in files if one is None or not file.is_mask]
    labels = {file.path: file.path.parent.name for file in files}
    plain = all(file.folders[-1:] == (labels[file.path],) and not file.is_mask for file in files)
    twice = Counter((file.path.parents[1], file.path.stem) for file in files).values()
    count = len({*labels.values()})
    # the same names in two folders are rather images and masks under other words: that is asked
    asked = count == 2 and {*twice} == {2}
    if plain and count > 1 and not (one or polygons or asked):
        files = [replace(file, label=labels[file.path]) for file in files]
        listed = ", ".join(sorted({*labels.values()}))
        notes.append(f"There are no masks: the label of an image is its folder ({listed}).")
    items = group(files, notes)
    counts = Counter(item.region for item in items)
    if len(counts) > REGIONS and max(counts.values()) == 1:
        items = [replace(item, region="all") for item in items]
    return items


def _said(folder: str) -> set[str]:
    """Return the words of a folder's name if they say what is in it, and nothing is left."""
    words = rf"(?:^|[._ -]+)({IMAGES}|{MASKS}|{'|'.join(SPLITS)})(?=[._ -]|$)"
    left = re.sub(words, "", folder, flags=re.IGNORECASE)
    return set() if left else {*re.findall(words, folder.lower())}


def _read_name(path: Path, parts: tuple[str, ...], trees: bool) -> File | None:
    """Read what folders and name of a file say; None if it is a picture beside the bands."""
    product = [n for n, part in enumerate(parts) if re.fullmatch(PRODUCT, part, re.IGNORECASE)]
    if (product and parts[product[0]][0] != "R" and "IMG_DATA" not in parts) or re.search(
        ASIDE, path.stem, re.IGNORECASE
    ):
        return None
    parts = parts[: product[0]] if product else parts
    above = {word for part in parts for word in _said(part)}
    folders = [part for part in parts if not _said(part)]
    usual = re.compile(rf"(?:^|[._ -]+)({IMAGES}|{MASKS})(?=[._ -]|$)", re.IGNORECASE)
    own = {word.lower() for word in usual.findall(path.stem)}
    name = usual.sub("", path.stem).strip("._ -")
    is_mask = bool((above if trees else own) & {*MASKS.split("|")})
    band = re.search(rf"(?:^|[._ -])({BAND})(?:[._ -](\d\d)m)?$", name, re.IGNORECASE)
    band = None if is_mask else band
    known = name[: band.start()] if band else name
    days = [x[0] for x in re.finditer(rf"(?<!\d){DATE}(?!\d)", known) if day(x[0])]
    any_day = re.compile("|".join(days) or "$")
    daily = any_day.sub(lambda text: str(day(text[0]) or ""), known)  # without the time of day
    bare = any_day.sub("", known).strip("._ -")
    folder = f"{folders.pop()}/" if folders and not known else ""  # it names the image
    return File(
        path, tuple(folder + text for text in (name, known, daily, bare)),
        next((SPLITS[word] for word in above if word in SPLITS), None), tuple(folders),
        days[0] if days else "", band[1].upper() if band else "",
        metres=int(band[2] or 0) if band else 0, is_mask=is_mask,
    )  # fmt: skip


def _unlabelled(root: Path, found: Sequence[Path]) -> GeopeftError:
    """Say what was seen, and the call to type, with patterns that were tried."""
    base = root if root.is_dir() else root.parent
    seen: dict[str, list[str]] = defaultdict(list)
    often: Counter[str] = Counter()
    for path in found:
        folders, ending = path.relative_to(base).parts[:-1], path.suffix
        seen["/".join((*folders, f"*{ending}"))].append(path.name)
        ends = re.fullmatch(r"((?:[A-Za-z]+[._-])*).+?((?:[._-][A-Za-z]+)*)", path.stem)
        for name in {"{id}", "{id}".join(ends.groups()) if ends else "{id}"}:
            often["/".join((*folders, name)) + ending] += 1
            for n, part in enumerate(folders):
                field = "{split}" if part.lower() in SPLITS else "{region}"
                often["/".join((*folders[:n], field, *folders[n + 1 :], name)) + ending] += 1
    shown = "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if names[3:] else ''})"
        for kind, names in seen.items()
    )
    best, call = (0, 0), ""
    for images, masks in permutations([pattern for pattern, _ in often.most_common(12)], 2):
        with suppress(GeopeftError, IndexError):
            items = _by_patterns(found[:500], base, images, masks, [])
            sizes = [path.stat().st_size for path in (items[0].images[0][0], items[0].mask) if path]
            fit = len(items), -images.count("{")  # as few fields as needed
            if fit > best and sizes[0] > sizes[-1]:
                pair = f"images={images!r}, masks={masks!r}"
                call = f'gp.load_data("folder", root={str(root)!r}, {pair}), or '
                best = fit
    return GeopeftError(
        f"No image in {root} has a mask or another label. Seen: {shown or 'no raster'}. Say what "
        f"labels them: {call}images='…' and masks='…' with {{id}} for what both share, labels= "
        "with a file of polygons or a raster that covers all, images='{label}/{id}.tif' if folders "
        "are classes. Images that nobody labelled are for gp.predict_scene."
    )
