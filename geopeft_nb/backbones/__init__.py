"""Backbones: one card per foundation model, one readable file per architecture."""
