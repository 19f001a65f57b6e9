"""Weights in files: PyTorch names, conversion, backbones and where they are fetched from."""
