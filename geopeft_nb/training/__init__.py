"""Training: the loop, what it remembers and what it costs."""
