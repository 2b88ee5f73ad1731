"""Decoders: from feature maps to one score per class and pixel, or per class and image."""
