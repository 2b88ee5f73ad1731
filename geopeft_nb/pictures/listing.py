"""A table to choose from."""

from __future__ import annotations

import pandas as pd


class Listing(pd.DataFrame):
    """Table whose texts a notebook shows in full, where pandas would end them with three dots."""

    @property
    def _constructor(self) -> type[Listing]:  # of rows and columns that are chosen
        return Listing

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_colwidth", None):
            return super()._repr_html_()
