"""Backbones: one card per foundation model, one readable file per architecture."""

from geopeft_nb.rooms import make_listing

make_listing(__name__)
