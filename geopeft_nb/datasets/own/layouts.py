"""Which files belong together: by patterns, by a table, or by a table of usual patterns."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pandas as pd

from geopeft_nb.datasets.own.products import day
from geopeft_nb.datasets.split import SIDES
from geopeft_nb.errors import GeopeftError, check_name, check_names
from geopeft_nb.open_files import read_text, regular_file

DATE = (
    r"(?:19|20)\d\d(?:[-_](?:0[1-9]|1[0-2])[-_](?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|(?!000)[0-3]\d\d)"
    r"(?:T\d{6}Z?)?"
)
#: What is known of a file.
COLUMNS = ("image", "mask", "id", "split", "region", "date", "band", "label", "metres")
RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2")
VECTORS = (".gpkg", ".geojson", ".shp", ".fgb")
BAND = (
    r"(?:S[RT]_)?B\d{1,2}A?|(?:S[RT]_)?B?QA(?:_[A-Z]+)?|ST_[A-Z]+|SCL|FMASK|AOT|WVP|[SV][AZ]A|VV|VH"
    r"|COASTAL|BLUE|GREEN|RED|NIR(?:08)?|SWIR_?[12]|SWIR(?:16|22)|RED_?EDGE_?[123]|NDVI|DEM"
)
SPLITS = {"training": "train", "testing": "test"} | {side: side for side in SIDES}
SPLITS |= dict.fromkeys(("valid", "validate", "validation", "dev"), "val")
SPLITS |= {f"{name}_set": side for name, side in SPLITS.items()}
#: What a pattern may name -> the text that it stands for; case does not matter.
FIELDS = {
    **dict.fromkeys(("id", "region", "band", "label"), "[^/]{1,255}?"),
    "split": "|".join(SPLITS), "date": DATE,
}  # fmt: skip
#: Words of folders and of names.
IMAGES = "(?:images?|imgs?|imagery|scenes?|sat|rgb|merged|s2hand)(?:_(?:dir|png|tif))?"
MASKS = (
    "(?:masks?|msk|labels?|lbl|ann|annotations?|gt|(?:ground_)?truth|targets?|seg|reference"
    "|labelhand)(?:_(?:dir|png|tif))?"
)
OTHER = f"(?!(?:{IMAGES}|{MASKS}|{FIELDS['split']})/)[^/]{{1,255}}?"
USUAL_FIELDS = FIELDS | {
    "region": OTHER, "label": OTHER, "band": BAND, "metres": r"\d\dm", "images": IMAGES,
    "masks": MASKS, "product": r"(?:(?:.*/)?IMG_DATA/)?(?:R\d\dm/)?",
    "browser": r"[^/]*Sentinel-2_L\w\w",
}  # fmt: skip
#: Usual patterns of images and of masks, without endings: what stands in [] may lack, and _ is any
#: of "_-. ". The first of those that label the most images is taken.
_IN = "{product}[{split}/][{region}/]"
_IMAGE = "[{images}_]{id}[_{date}][_{band}][_{metres}][_{images}]"
_MASK = "[{masks}_]{id}[_{date}][_{masks}]"
USUAL = (
    ("{images}/{split}_{id}", "{masks}/{split}_{id}"),
    (_IN + "{images}/{id}", _IN + "{masks}/{id}"),
    ("{images}/" + _IN + "{id}", "{masks}/" + _IN + "{id}"),
    ("{split}_{images}/{id}", "{split}_{masks}/{id}"),
    ("{images}_{split}/{id}", "{masks}_{split}/{id}"),
    ("{split}/{id}", "{split}_{masks}/{id}"),
    (_IN + "{images}/" + _IMAGE, _IN + "{masks}/" + _MASK),
    ("{images}/" + _IN + _IMAGE, "{masks}/" + _IN + _MASK),
    (_IN + "{id}", _IN + "{id}_{masks}"),
    (_IN + _IMAGE, _IN + "{masks}_{id}[_{date}]"),
    (_IN + _IMAGE, _IN + "{id}[_{date}]_{masks}"),
    (_IN + "{id}/{images}", _IN + "{id}/{masks}"),
    (_IN + "{id}/[{browser}_]{band}", _IN + "{id}/{masks}"),
    (_IN + "{id}/{id}_{band}", _IN + "{id}/{id}_{masks}"),
    ("[{images}/]{id}/{id}_{band}", "{masks}/{id}[_{masks}]"),
)
#: Those of images that polygons or one raster label.
ALONE = (
    _IN + "{id}/{id}_{band}",
    _IN + "{id}/{band}",
    _IN + "[{images}/]{id}[_{band}][_{metres}]",
    "[{images}/]" + _IN + "{id}[_{band}]",
)
#: What lies beside the bands of Sentinel-2, Planet and Landsat.
ASIDE = r"(?:^|[/._-])(?:udm2?|tci|pvi|ql|thumb_\w+)(?:[._-](?:\d\dm|clip))?$"


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


def find_items(
    root: Path, images: str | None = None, masks: str | None = None,
    labels: str | os.PathLike[str] | None = None, table: Any = None,
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
    if masks is not None and images is None:
        raise GeopeftError(f"masks={masks!r} needs images='…', the pattern of what they label.")
    base = root.parent if root.is_file() else root
    one = None if labels is None else regular_file(base / labels)
    found = [root] if root.is_file() else [x for x in _below(root, RASTERS) if x != one]
    names = pd.Series([path.relative_to(base).as_posix() for path in found], found, dtype=object)
    vectors = [] if root.is_file() or one else _below(root, VECTORS)
    if one and one.suffix.lower() in (*VECTORS, ".json"):
        vectors, one = [one], None
    if table is not None:
        files = _from_table(table, base)
    elif images is not None:
        files = _fitting(names, images)
        files = files if masks is None else _paired(files, _fitting(names, masks))
    else:
        files = _usual(names, labels is not None, bool(vectors))
    several = files[files["mask"] != ""].groupby("mask")[["split", "region"]].nunique().max(axis=1)
    if table is None and (several > 1).any():
        what = "belongs to images of several regions or sides: name both in masks="
        raise GeopeftError(f"{several.idxmax()} {what}, or say which by table=.")
    if odd := [text for text in files["date"] if text and day(text) is None]:
        ways = "Write days as 2021-06-01, or let it be a part of {id}, by images=."
        raise GeopeftError(f"The files have the date {odd[0]!r}. {ways}")
    items = [replace(item, mask=one or item.mask) for item in make_items(files)]
    labelled = any(item.mask or item.label is not None for item in items)
    if not items or not (labelled or vectors):
        raise _unlabelled(root, names, images, masks)
    if not labelled and len(vectors) > 1:
        listed = ", ".join(path.relative_to(base).as_posix() for path in vectors)
        raise GeopeftError(f"{root} has several files of polygons: {listed}. Choose with labels=.")
    used = {*files["image"], *files["mask"], *([] if labelled else vectors)}
    left = [path.name for path in (*found, *vectors) if path not in used and table is None]
    note = f"Left out, without a partner: {len(left)} ({', '.join(left[:3])})."
    return items, None if labelled else vectors[0], [note] if left else []


def _below(folder: Path, endings: Iterable[str]) -> list[Path]:
    """List files with one of the endings, hidden ones left out and links out of it refused."""
    paths = [x for x in folder.rglob("*") if x.suffix.lower() in endings and not x.is_dir()]
    seen = [x for x in paths if "/." not in f"/{x.relative_to(folder).as_posix()}"]
    return sorted(regular_file(path, folder) for path in seen)


def _fitting(names: pd.Series, pattern: str, fields: Mapping[str, str] = FIELDS) -> pd.DataFrame:
    """Return the files whose names a pattern fits, with what it says of them."""
    text, seen = re.escape(pattern), {*fields} - {*COLUMNS}
    if fields is USUAL_FIELDS:
        for mark, meaning in ((r"\[", "(?:"), (r"\]", ")?"), ("_", "[._ -]")):
            text = text.replace(mark, meaning)

    def field(match: re.Match[str]) -> str:
        check_name(f"field of the pattern {pattern!r}", name := match[1], fields)
        if name in seen:
            return f"(?P={name})" if name in COLUMNS else f"(?:{fields[name]})"
        seen.add(name)
        return f"(?P<{name}>{fields[name]})"

    text = re.sub(r"\\\{(\w*)\\\}", field, text)
    files = names.str.extract(rf"^(?P<image>{text})\Z", re.IGNORECASE).dropna(subset="image")
    if "label" in files:
        files["id"] = files["label"] + "/" + files.get("id", "")
    return _tidy(files.assign(image=files.index))


def _tidy(files: pd.DataFrame) -> pd.DataFrame:
    """Bring what a pattern or a table says into the same columns, as texts."""
    files = files.reindex(columns=COLUMNS).astype(object).fillna("")
    texts = [x for x in COLUMNS if x not in ("image", "mask", "label")]
    files[texts] = files[texts].astype(str)
    files["split"] = files["split"].str.lower()
    check_names("split", {*files["split"]} - {""}, SPLITS)
    files["split"] = files["split"].map(SPLITS | {"": ""})
    files["date"] = files["date"].map(lambda text: str(day(text) or text))  # no time of day
    return files


def _paired(images: pd.DataFrame, masks: pd.DataFrame) -> pd.DataFrame:
    """Return the images that have a mask which agrees in all that both name; with it."""
    images = images[~images["image"].isin(masks["image"])]  # what fits both is a mask
    both = ["id", *(x for x in ("split", "region", "date") if all(images[x]) and all(masks[x]))]
    files = images.drop(columns="mask").merge(masks[both].assign(mask=masks["image"]), on=both)
    if "date" in both:
        files["id"] += "_" + files["date"]
    return files


def _usual(names: pd.Series, covered: bool, polygons: bool) -> pd.DataFrame:
    """Find files by the usual patterns, of images with masks, or of those that something covers."""
    bare = names.str.replace(r"(?:_\(Raw\))?\.\w+$", "", regex=True)
    bare = bare[~bare.str.contains(ASIDE, case=False)]
    fitting = partial(_fitting, bare, fields=USUAL_FIELDS)
    tried = (_paired(*map(fitting, row)) for row in USUAL)
    files = max(tried, key=lambda files: files["image"].nunique())
    return max(map(fitting, ALONE), key=len) if covered or (polygons and files.empty) else files


def _from_table(table: Any, base: Path) -> pd.DataFrame:
    """Take files from the rows of a table; a mask is for all dates of an id."""
    if isinstance(table, str | os.PathLike):  # of texts as they are written: 01, 1 and NA are names
        said = {"dtype": str, "keep_default_na": False, "na_values": [""]}
        table = read_text(base / table, lambda text: pd.read_csv(StringIO(text), **said))
    # "Split", " mask"
    table = table.rename(columns=lambda x: y if (y := str(x).strip().lower()) in COLUMNS else x)
    check_name("column of the table", "image", [*table.columns])
    if not table.columns.is_unique:
        raise GeopeftError(f"The table has a column twice: {', '.join(table)}. Keep one of them.")
    files = _tidy(pd.DataFrame(table)).astype({"image": str, "mask": str})
    bare = files["image"].str.replace(r"\.\w+$", "", regex=True)
    files["id"] = files["id"].where(files["id"] != "", bare)
    files["image"] = [regular_file(base / name, base) for name in files["image"]]
    files["mask"] = [name and regular_file(base / name, base) for name in files["mask"]]
    return files


def _unlabelled(root: Path, names: pd.Series, *given: str | None) -> GeopeftError:
    """Say what was seen, and a call to type that finds some, from the most frequent names."""
    kinds = names.str.replace(
        rf"(?<![^/])(?:{FIELDS['split']})(?=/)", "{split}", regex=True, flags=re.IGNORECASE
    ).str.replace(
        r"(?<![^/])((?:[a-z]+[._-])*)[^/]+?((?:[._-][a-z]+)*\.\w+)$", r"\1{id}\2",
        regex=True, flags=re.IGNORECASE,
    )  # fmt: skip
    counts = kinds.value_counts()[:8]
    seen = "; ".join(f"{count} {kind}" for kind, count in counts.items()) or "no raster"
    others = {x.suffix for x in root.rglob("*.*") if x.suffix.lower() not in RASTERS + VECTORS}
    seen += f"; not read: {', '.join(sorted(others))}" if others else ""
    named = {*counts.index[counts.index.str.contains(rf"(?:^|[/._ -]){MASKS}[/._ -]", case=False)]}
    first = kinds[kinds.isin(counts.index)].drop_duplicates().items()
    order = sorted((kind in named, -path.stat().st_size, kind) for path, kind in first)
    ends = [order[0], order[-1]] if order else [(False, 0, "…")] * 2
    (_, large, image), (is_named, small, mask) = ends  # sizes are negative
    likely = is_named or 2 * small > large
    if not (likely and len(_paired(_fitting(names, image), _fitting(names, mask)))):
        image = mask = "…"
    call = f"images={image!r}, masks={mask!r}"
    folders = f"{{label}}/{{id}}{names.index[0].suffix}" if len(names) else "{label}"
    if image == "…" and _fitting(names, folders, USUAL_FIELDS)["label"].nunique() > 1:
        call = f"images={folders!r}"
    by = "" if given[0] is None else f" by images={given[0]!r}, masks={given[1]!r}"
    return GeopeftError(
        f"No image in {root} has a mask or another label{by}. Seen: {seen}. Say what labels them: "
        f'gp.load_data("folder", root={str(root)!r}, {call}), with whole paths below the root and '
        "{id} for what both share; labels= takes polygons or a raster that covers all; or "
        "images='{label}/{id}.tif' if folders are classes. gp.predict_scene takes bare images."
    )


def make_items(files: pd.DataFrame) -> list[Item]:
    """Make items of files: those of one id belong together, by date and band.

    Args:
        files: A row an image, with the columns `COLUMNS`; "" is what is not known.

    Raises:
        ValueError: Two files say the same, or a date lacks a band.
    """
    key = ["split", "region", "id"]
    order = [*key, "date", "band", "metres"]
    files = files.sort_values(
        order,  # B2 before B10, and of a band the finest first, which stays
        key=lambda column: column.str.replace(r"\d+", lambda text: text[0].zfill(9), regex=True),
    )
    texts = files[order].to_numpy()
    files["folded"] = [normalize("NFC", "/".join(text)).casefold() for text in texts]
    if (same := files.duplicated("folded", keep=False)).any():
        _, of_one = next(iter(files[same].groupby("folded")))
        column = "mask" if of_one["image"].nunique() == 1 < of_one["mask"].nunique() else "image"
        raise alike(*[*of_one[column].unique(), *of_one[column]][:2])  # twice, if a table has it so
    files = files.drop_duplicates(order[:-1])
    kinds, items = {"image": tuple, "band": tuple, "mask": set, "label": set}, []
    dated = files.groupby([*key, "date"], as_index=False).agg(kinds)
    for (split, region, name), some in dated.groupby(key):
        dates, (bands, *_) = [*some["date"]], some["band"]
        if odd := {*some["band"]} - {bands}:
            first = f"{name!r} has the bands {', '.join(bands)} on {dates[0]}"
            raise GeopeftError(f"{first}, and on another date {', '.join(odd.pop())}. Add some.")
        (mask, *more), (label, *_) = set().union(*some["mask"]), set().union(*some["label"])
        if more:
            raise alike(mask, *more[:1])
        images, label = tuple(some["image"]), None if label == "" else label
        written = re.search(rf"(?<!\d){DATE}(?!\d)", name)
        days = tuple(day(date or (written and written[0])) for date in dates)
        name = "/".join(filter(None, (split, region, name))) or images[0][0].stem
        told = mask or None, label, region or "all", split or None
        items.append(Item(name, images, bands if any(bands) else (), days, *told))
    return items


def alike(one: Path, two: Path) -> GeopeftError:
    """Make the error for two files of one name."""
    what = "have the same name, or one that differs in case or the form of accents only"
    return GeopeftError(f"{one} and {two} {what}. Rename one, say images=, or keep one row.")
