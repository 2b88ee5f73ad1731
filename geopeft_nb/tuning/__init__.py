"""Tuning: the methods that choose or add what is trained, and how to save it."""
