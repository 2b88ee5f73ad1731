"""Decoders: from feature maps to one score per class and pixel, or per class and image."""

from geopeft_nb.rooms import make_listing

make_listing(__name__)
