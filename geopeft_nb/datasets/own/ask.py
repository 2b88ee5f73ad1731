"""What is not stated is asked for: what was seen, and the whole call to type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from itertools import takewhile
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geopeft_nb.errors import GeopeftError

#: Files that the table of an error shows, with a row for each of their bands.
FILES = 6


@dataclass(frozen=True)
class Asked:
    """What somebody says about files, see `load_folder`; each one value, or one by region or file.

    Attributes:
        band_names: Names of the bands of a file, in their order.
        scale: Reflectance is (number + offset) / scale.
        offset: In the numbers of the files.
        nodata: Number of pixels without data; NaN says that there is none.
        frames: Dates that are stacked in a file.
        order: ``"time-band"`` if all bands of the first date come first, or ``"band-time"``.
    """

    band_names: Any = None
    scale: Any = None
    offset: Any = None
    nodata: Any = None
    frames: int = 1
    order: str | None = None

    @property
    def given(self) -> dict[str, object]:
        """What was said, as options."""
        usual = vars(type(self)())
        return {key: value for key, value in vars(self).items() if value is not usual[key]}

    def of(self, what: str, path: Path, region: str) -> Any:  # noqa: ANN401 - any of them
        """Return what was said for a file, or None."""
        said = getattr(self, what)
        if not isinstance(said, Mapping):
            return said
        fits = (one for key, one in said.items() if key == region or _fits(path, key))
        return next(fits, None)

    def check(self, files: Sequence[tuple[Path, str]]) -> None:
        """Refuse what was said for a region or a pattern that there is not."""
        for what in ("band_names", "scale", "offset", "nodata"):
            said = getattr(self, what)
            for key in said if isinstance(said, Mapping) else ():
                if not any(key == region or _fits(path, key) for path, region in files):
                    regions = ", ".join(sorted({region for _, region in files}))
                    raise GeopeftError(
                        f"{what} has {key!r}, which is no region ({regions}) and fits no file, "
                        f"such as {files[0][0].name!r}. Give a region, or a pattern as '*_B02.tif'."
                    )


def _fits(path: Path, pattern: str) -> bool:
    return fnmatch(path.name, pattern) or fnmatch(path.as_posix(), f"*/{pattern}")


def _shared(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    columns = takewhile(lambda x: len({*x}) == 1, zip(*texts, strict=False))
    return "".join(x[0] for x in columns)


class Ask:
    """Collects questions about files, so that all are asked at once.

    Args:
        call: What was called, up to its options, with a bracket or a comma at its end.
        given: The options that were given.
        asked: What was said about the files.
        files: All files, and the region of each.
    """

    def __init__(
        self, call: str, given: Mapping[str, object], asked: Asked,
        files: Sequence[tuple[Path, str]],
    ) -> None:  # fmt: skip
        self.call, self.given, self.asked = call, given, asked
        self.files = dict(files)
        self.why: dict[str, set[Path]] = {}
        self.tables: dict[Path, pd.DataFrame] = {}
        self.likely: dict[str, dict[Path, Any]] = {}
        self.common: dict[str, object] = {}

    def about(self, path: Path, why: str, **likely: object) -> None:
        """Take down a question about a file, and the likely answers for it."""
        self.why.setdefault(why, set()).add(path)
        for option, value in likely.items():
            self.likely.setdefault(option, {})[path] = value

    def about_all(self, why: str, **likely: object) -> None:
        """Take down a question whose answer is one for all files."""
        self.why.setdefault(why, set())
        self.common |= likely

    def settle(self) -> None:
        """Ask, if there is a question.

        Raises:
            GeopeftError: With a table, and the call that answers all questions.
        """
        if not self.why:
            return
        likely = {option: self._shortest(option, x) for option, x in self.likely.items()}
        options = {**self.given, **likely, **self.common}
        said = ", ".join(
            f"{key}={x!r}" if repr(x) != "nan" else f'{key}=float("nan")'
            for key, x in options.items()
            if x is not None
        )
        why = "\n".join(
            f"- {x}" + (f" ({len(files)} files)" if files else "") for x, files in self.why.items()
        )
        raise GeopeftError(
            f"These files do not say all that is needed:\n{why}\nSeen:\n{self._table()}\n"
            f"If that is right, type this; else change it:\n{self.call}{said})"
        )

    def _names(self) -> dict[Path, str]:
        root = commonpath([path.parent for path in self.files])
        return {path: path.relative_to(root).as_posix() for path in self.files}

    def _table(self) -> str:
        """Show files of all regions in turn, first those that most is asked about."""
        odd, names = Counter(path for paths in self.why.values() for path in paths), self._names()
        asked = pd.Series({path: odd[path] for path in self.tables if odd[path] or not odd})
        asked = asked.sort_values(ascending=False, kind="stable")
        turn = asked.groupby([self.files.get(path, "") for path in asked.index]).cumcount()
        shown = sorted(turn.sort_values(kind="stable").index[:FILES], key=names.__getitem__)
        if not shown:
            return "only headers"
        table = pd.concat({names[path]: self.tables[path] for path in shown}, names=["file"])
        table = table.droplevel(1).reset_index().fillna("")
        table.loc[table.file.duplicated(), ["file", "type", "constant"]] = ""
        more = len(asked) - len(shown)
        return table.to_string(index=False) + (f"\n… and {more} more files" if more else "")

    def _shortest(self, option: str, answers: Mapping[Path, Any]) -> Any:  # noqa: ANN401
        """Say one value for all files, or one a region, or one a pattern of their names."""
        said = getattr(self.asked, option)
        if option == "nodata" and not isinstance(said, Mapping):  # harms no file that lacks it
            known = {*np.ravel([x for x in (said,) if x is not None]).tolist()}
            fills = sorted(known.union(*(np.ravel(x).tolist() for x in answers.values())))
            return fills if fills[1:] else fills[0]
        answer = {
            path: answers.get(path, self.asked.of(option, path, region))
            for path, region in self.files.items()
        }
        if len({*map(repr, answer.values())}) == 1:
            return next(iter(answer.values()))
        by = {region: answer[path] for path, region in self.files.items()}
        if all(by[self.files[path]] == value for path, value in answer.items()):
            return {region: value for region, value in by.items() if value is not None}
        names, groups = self._names(), dict[str, list[Path]]()
        for path, value in answer.items():
            groups.setdefault(repr(value), []).append(path)
        others = {*groups.pop("None", ())}
        others.update(path for some in groups.values() for path in some)
        patterns: dict[str, Any] = {}
        for some in sorted(groups.values(), key=len):  # the first pattern that fits a file counts
            same = {*some}
            others -= same
            mine = [names[path] for path in some]
            ends = _shared(mine), _shared([name[::-1] for name in mine])[::-1]
            short = "*".join(map(escape, ends))
            good = all(_fits(path, short) == (path in same) for path in (*some, *others))
            keys = [short] if mine[1:] and good else map(escape, mine)
            patterns |= dict.fromkeys(keys, answer[some[0]])
        return patterns
