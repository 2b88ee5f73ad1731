"""Rooms that can be called: `gp.backbones()` lists what the room `geopeft_nb.backbones` holds.

A package and a public function share a name here, and Python binds the package as soon as anything
in it is imported. So the package itself is made callable, and both keep working in any order.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class ListingRoom(ModuleType):
    """A package whose call returns the table that the function of its name in `load.py` makes."""

    def __call__(self) -> pd.DataFrame:
        """Return the table of what the room holds."""
        listing = getattr(import_module(f"{self.__name__}.load"), self.__name__.rsplit(".", 1)[1])
        return listing()


def make_listing(package: str) -> None:
    """Make the package of that name callable; its `__init__.py` calls this with `__name__`."""
    sys.modules[package].__class__ = ListingRoom
