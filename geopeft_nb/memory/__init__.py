"""What a training step keeps in memory: measured, planned, and made less."""
