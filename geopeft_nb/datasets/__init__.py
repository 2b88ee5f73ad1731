"""Data sets: chips with regions and places, as torchgeo dictionaries."""
