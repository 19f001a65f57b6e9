"""Databases on disk, their splits, and the crops and batches made from them."""
