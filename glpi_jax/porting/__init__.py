"""Weights from PyTorch checkpoints."""
