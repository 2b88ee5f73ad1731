"""Evaluation: scores, intervals and regions."""
