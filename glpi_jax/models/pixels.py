"""From the pixels of a file to what the network takes."""

import jax
import jax.numpy as jnp


def normalise(images: jax.Array) -> jax.Array:
    """Map uint8 pixels to float32 in [-1, 1]: (x/255 − 0.5)/0.5, as the official transform."""
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5
