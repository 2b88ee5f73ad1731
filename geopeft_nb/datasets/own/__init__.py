"""Somebody's own files."""
