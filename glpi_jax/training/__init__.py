"""The recipe: optimizer, sharded step, loop and checkpoints."""
