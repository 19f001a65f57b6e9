"""Official PyTorch checkpoints in and out, with Adam, and the check against the official code."""
