"""What is not stated is asked for: what was seen, and the whole call to type."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from glob import escape
from os.path import commonpath
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from geopeft_nb.errors import GeopeftError

#: Files that the table of an error shows, with a row for each of their bands.
FILES = 6
#: Share of the pixels that may have one number.
CONSTANT = 0.01
#: Share of the range of all numbers by which one that means no data lies apart from the others.
GAP = 0.05
#: Options that may be other for each region or file.
OF_FILES = ("band_names", "scale", "offset", "nodata")
T = TypeVar("T")


def spread(things: Sequence[T], at_most: int) -> list[T]:
    """Return at most so many things, evenly spread."""
    chosen = np.linspace(0, len(things) - 1, min(at_most, len(things))).round().astype(int)
    return [things[index] for index in chosen]


def listed(said: Any) -> list[float]:
    """Return what is one number, several or None as a list."""
    found: list[float] = np.ravel([] if said is None else said).tolist()
    return found


def apart(values: np.ndarray, counts: np.ndarray, known: Sequence[float] = ()) -> list[float]:
    """Return what is likely no data: frequent numbers at an end that lie apart from all others.

    Also those up to -9999 and from 65535 on, unless these are many.

    Args:
        values: (N,) different numbers, sorted.
        counts: (N,) how often each is there.
        known: Numbers that may be rare, too.
    """
    never = values[(values <= -9999) | (values >= 65_535)]
    often = (counts > CONSTANT * counts.sum()) | np.isin(values, [*never, *known])
    gaps = np.diff(values.clip(-1e30, 1e30))  # of infinity, too
    wide = gaps > gaps.sum() * max(GAP, min(0.9, 5 / (len(gaps) + 1)))  # few lie apart anyhow
    low, high = (
        max((n for n in (1, 2, 3) if n < len(far) and far[n - 1] and some[:n].all()), default=0)
        for some, far in ((often, wide), (often[::-1], wide[::-1]))
    )
    ends = [*values[:low], *values[len(values) - high :], *(never if len(never) <= 3 else ())]
    return [float(x) for x in ends if x]  # 0 is much else


class Ask:
    """What somebody says about files; and questions, collected so that all are asked at once.

    Args:
        call: What was called, up to its options, with a bracket or a comma at its end.
        given: The options that were given, see `load_folder`. `band_names`, `scale`, `offset` and
            `nodata` are one value each, or a mapping by region or by pattern of file names.
        files: All files -> the region of each.

    Raises:
        GeopeftError: Something was said for a region or a pattern that there is not.
    """

    def __init__(self, call: str, given: Mapping[str, Any], files: Mapping[Path, str]) -> None:
        self.call, self.given, self.files = call, given, files
        root = commonpath([path.parent for path in files])
        self.names = {path: path.relative_to(root).as_posix() for path in files}
        self.why: dict[str, set[Path]] = {}
        self.tables: dict[Path, pd.DataFrame] = {}
        self.likely: dict[str, dict[Path, Any]] = {}
        for what in OF_FILES:
            said = given[what] if isinstance(given.get(what), Mapping) else ()
            if odd := [key for key in said if not any(self._fits(x, key) for x in files)]:
                regions, example = ", ".join({*files.values()}), next(iter(files)).name
                raise GeopeftError(
                    f"{what} has {odd[0]!r}, which is no region ({regions}) and fits no file, such "
                    f"as {example!r}. Give a region, or a pattern as '*_B02.tif'."
                )

    def _fits(self, path: Path, key: str) -> bool:
        return self.files[path] == key or bool(key and path.match(key))

    def of(self, what: str, path: Path) -> Any:
        """Return what was said for a file, or None; of patterns the first that fits counts."""
        said = self.given.get(what)
        if not isinstance(said, Mapping):
            return said
        return next((one for key, one in said.items() if self._fits(path, key)), None)

    def about(self, paths: Sequence[Path], why: str, **likely: object) -> None:
        """Take down a question about files, or about all, and the likely answers for them."""
        self.why.setdefault(why, set()).update(paths)
        for option, value in likely.items():
            self.likely.setdefault(option, {}).update(dict.fromkeys(paths or self.files, value))

    def settle(self) -> None:
        """Ask, if there is a question.

        Raises:
            GeopeftError: With a table, and the call that answers all questions.
        """
        if not self.why:
            return
        likely = {option: self._answer(option, x) for option, x in self.likely.items()}
        given = {key: x for key, x in {**self.given, **likely}.items() if x is not None}
        texts = {key: key if isinstance(x, pd.DataFrame) else repr(x) for key, x in given.items()}
        said = ", ".join(f"{key}={text}" for key, text in texts.items())
        said = re.sub(r"(?<=[=\[ ])-?(?:nan|inf)(?=[],}]|$)", r'float("\g<0>")', said)
        why = "\n".join(f"- {x}" + f" ({len(of)} files)" * bool(of) for x, of in self.why.items())
        raise GeopeftError(
            f"These files do not say all that is needed:\n{why}\nSeen:\n{self._table()}\n"
            f"If that is right, type this; else change it:\n{self.call}{said})"
        )

    def _table(self) -> str:
        """Show what was seen in some of the files that are asked about."""
        odd, names = set[Path]().union(*self.why.values()), self.names
        asked = sorted((x for x in self.tables if x in odd or not odd), key=names.__getitem__)
        if not asked:
            return "only headers"
        shown = {names[path]: self.tables[path] for path in spread(asked, FILES)}
        table = pd.concat(shown, names=["file"]).droplevel(1).reset_index().fillna("")
        table.loc[table.file.duplicated(), ["file", "type", "constant"]] = ""
        more = len(asked) - len(shown)
        return table.to_string(index=False) + (f"\n… and {more} more files" if more else "")

    def _answer(self, option: str, answers: Mapping[Path, Any]) -> Any:
        """Say one value for all files, or one a region, or one a file, and "*" for all others."""
        if option not in OF_FILES:
            return [*answers.values()][-1]
        answer = {path: answers.get(path, self.of(option, path)) for path in self.files}
        if option == "nodata":  # beside what was said; one for all harms no file that lacks it
            for path, new in answer.items():
                answer[path] = sorted({*listed(new), *listed(self.of(option, path))})
            if not isinstance(self.given.get(option), Mapping):
                fills = sorted(set[float]().union(*answer.values()))
                return fills if fills[1:] else fills[0]
        ((usual, _), *more) = Counter(map(repr, answer.values())).most_common()
        if not more:
            return next(iter(answer.values()))
        by = {region: answer[path] for path, region in self.files.items()}
        if all(by[self.files[path]] == value for path, value in answer.items()):
            return {region: value for region, value in by.items() if value is not None}
        rest = [] if None in answer.values() else [x for x in answer.values() if repr(x) == usual]
        odd = {path.name for path, value in answer.items() if value not in (None, *rest)}
        # the first that fits counts, and a name fits in other folders, too
        deep = sorted((x for x in answer if x.name in odd), key=lambda path: -len(path.parts))
        keys = {escape(self.names[x]): answer[x] for x in deep if answer[x] is not None}
        return keys | ({"*": rest[0]} if rest else {})
