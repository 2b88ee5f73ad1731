"""What is not stated is asked for: what was seen, and the whole call to type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from os.path import commonpath
from pathlib import Path
from typing import Any

import pandas as pd

from geopeft_nb.errors import GeopeftError

#: Files that the table of an error shows.
ROWS = 8


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
        self.asked = asked
        self.call, self.given = call, {key: x for key, x in given.items() if x is not None}
        self.files = dict(files)
        self.why: dict[str, set[Path]] = {}
        self.rows: dict[Path, dict[str, object]] = {}
        self.likely: dict[str, dict[Path, object]] = {}
        self.common: dict[str, object] = {}
        self.items: dict[int, str] = {}

    def about(self, path: Path, why: str, **likely: object) -> None:
        """Take down a question about a file, and the likely answers for it."""
        self.why.setdefault(why, set()).add(path)
        for option, value in likely.items():
            self.likely.setdefault(option, {})[path] = value

    def about_all(self, why: str, **likely: object) -> None:
        """Take down a question whose answer is one for all files."""
        self.why.setdefault(why, set())
        self.common |= likely

    def seen(self, path: Path, **facts: object) -> None:
        """Take down what was seen in a file."""
        self.rows.setdefault(path, {"file": path.name}).update(facts)

    def settle(self) -> None:
        """Ask, if there is a question.

        Raises:
            GeopeftError: With a table, and the call that answers all questions.
        """
        if not self.why:
            return
        options = self.given | {key: self._shortest(key, x) for key, x in self.likely.items()}
        said = ", ".join(f"{key}={value!r}" for key, value in (options | self.common).items())
        odd = set().union(*self.why.values())
        rows = [row for path, row in self.rows.items() if path in odd or not odd]
        table = pd.DataFrame(rows[:ROWS]).fillna("").to_string(index=False)
        more = f"\n… and {len(rows) - ROWS} more files" if len(rows) > ROWS else ""
        why = "\n".join(
            f"- {x}" + (f" ({len(files)} files)" if files else "") for x, files in self.why.items()
        )
        raise GeopeftError(
            f"These files do not say all that is needed:\n{why}\nSeen:\n{table}{more}\n"
            f"If that is right, type this; else change it:\n{self.call}{said})"
        )

    def _shortest(self, option: str, answers: Mapping[Path, object]) -> object:
        """Say one value for all files, or one a region, or one a file."""
        answer = {
            path: answers.get(path, self.asked.of(option, path, region))
            for path, region in self.files.items()
        }
        values = list(answer.values())
        if all(value == values[0] for value in values):
            return values[0]
        by = {region: answer[path] for path, region in self.files.items()}
        if any(by[self.files[path]] != value for path, value in answer.items()):
            root = commonpath([path.parent for path in answer])
            by = {escape(path.relative_to(root).as_posix()): x for path, x in answer.items()}
        return {key: value for key, value in by.items() if value is not None}
