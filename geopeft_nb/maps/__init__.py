"""Maps: image, label, prediction and where they differ, first as a figure, then interactive."""
