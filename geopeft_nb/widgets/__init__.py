"""What is watched: the live view of a training run, and the picture of it that stays."""
