"""Training: the loop, what it remembers, what it costs, and how geopeft_tiny was pretrained."""
