"""The network of a config."""

from ml_collections import ConfigDict

from glpi_jax.models.glpi import GLPI, NO_REMAT, Remat, build


def model_of(config: ConfigDict, *, remat: Remat = NO_REMAT) -> GLPI:
    """The model of a config; `remat` matters where it is trained."""
    return build(
        config.model.name,
        dropout=config.model.dropout,
        dtype=config.model.dtype,
        param_dtype=config.model.param_dtype,
        batch_norm_inference_stages=tuple(config.model.batch_norm_inference_stages),
        attention=config.model.attention,
        remat=remat,
        plain_operators=tuple(config.model.plain_operators),
    )
