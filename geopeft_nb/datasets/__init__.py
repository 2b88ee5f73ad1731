"""Data sets: chips with regions and places, as torchgeo dictionaries."""

from geopeft_nb.rooms import make_listing

make_listing(__name__)
