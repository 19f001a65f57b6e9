"""SAQT, semantic-aligned quality transfer: KADID-10k's scores for other photographs, distorted."""
