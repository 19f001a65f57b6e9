"""Scores of images, metrics over them, and the report."""
