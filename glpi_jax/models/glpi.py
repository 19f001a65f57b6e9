"""The whole network and its sizes.

Source: arXiv 2408.03885 (there called GlintIQA) and the authors' PyTorch implementation.
"""

import dataclasses
import functools
from collections.abc import Collection, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from glpi_jax.core.errors import GlpiError
from glpi_jax.models.integration import CLFE, CWSA, SIEM, QualityHead
from glpi_jax.models.layers import REMATERIALIZATIONS, Dtype, rematerialized, torch_dense, types_of
from glpi_jax.models.vit import ATTENTIONS, ViT


@dataclasses.dataclass(frozen=True)
class Size:
    """The numbers that make a GLPI network.

    Attributes:
        crop: side of the input crop in pixels; a multiple of `patch`.
        patch: side of a ViT patch; 16, since ResNet's layer3 has stride 16.
        vit_dim: width of the ViT's tokens.
        dim: width d of a token of the CNN branch and of the integration; in the paper `vit_dim`.
        depth: blocks of the full ViT that a checkpoint holds; blocks behind the last tap never
            reach the score and are neither built nor computed.
        heads: attention heads of the ViT.
        mlp_hidden: hidden width of the ViT's MLPs.
        taps: the four ViT blocks, counted from 0, that feed the stack.
        stem, widths, blocks: ResNet stem channels, bottleneck widths and blocks of its stages.
    """

    crop: int
    patch: int
    vit_dim: int
    dim: int
    depth: int
    heads: int
    mlp_hidden: int
    taps: tuple[int, ...]
    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens N of a crop, without the class token."""
        return (self.crop // self.patch) ** 2


def _official(dim: int, heads: int) -> Size:
    return Size(
        crop=224,
        patch=16,
        vit_dim=dim,
        dim=dim,
        depth=12,
        heads=heads,
        mlp_hidden=4 * dim,
        taps=(6, 7, 8, 9),
        stem=64,
        widths=(64, 128, 256),
        blocks=(3, 4, 6),
    )


SIZES: dict[str, Size] = {
    "glpi_s16": _official(dim=384, heads=6),
    "glpi_b16": _official(dim=768, heads=12),
    "glpi_ti16": _official(dim=192, heads=3),
    # Of the weights that come with the package: the first half of a ViT-S, which can be pretrained,
    # and little besides. Scores a crop in a third of the time of glpi_s16.
    "glpi_small": Size(
        crop=224,
        patch=16,
        vit_dim=384,
        dim=64,
        depth=12,
        heads=6,
        mlp_hidden=1536,
        taps=(2, 3, 4, 5),
        stem=32,
        widths=(16, 32, 64),
        blocks=(1, 1, 1),
    ),
    # Trains from scratch on two CPU cores in minutes.
    "glpi_demo": Size(
        crop=64,
        patch=16,
        vit_dim=48,
        dim=48,
        depth=4,
        heads=3,
        mlp_hidden=96,
        taps=(0, 1, 2, 3),
        stem=16,
        widths=(8, 16, 32),
        blocks=(1, 1, 1),
    ),
}


@dataclasses.dataclass(frozen=True)
class Remat:
    """What each part computes again for the gradient: "none", "dots" or "full".

    See `glpi_jax.models.layers.rematerialized`. It changes memory and speed, not results.
    """

    vgfe: str = "none"
    clfe: str = "none"
    integration: str = "none"


NO_REMAT = Remat()
PLATFORMS = ("cpu", "gpu", "tpu")
DTYPES = ("float32", "bfloat16")


class GLPI(nn.Module):
    """GLPI: ViT and ResNet features, integrated progressively into one quality score.

    Attributes:
        size: the numbers of the network.
        dropout: rate of every dropout (0.5 in the paper).
        batch_norm_inference_stages: ResNet parts whose BatchNorm stays in inference mode while
            training; empty in the official recipe, also for the frozen stages.
        dtype: compute dtype, float32 or bfloat16. Softmax, L2 norms, normalisations and the score
            are float32 either way.
        param_dtype: of the parameters, float32 or bfloat16; running statistics are float32.
        attention: what computes the ViT's, see `glpi_jax.models.vit.SelfAttention`.
        remat: what is computed again for the gradient.
        plain: XLA's own convolutions, pooling and gradient of BatchNorm, where the CPU takes matrix
            products, slices and a gradient written out. Speed and last digits differ.
    """

    size: Size
    dropout: float
    batch_norm_inference_stages: tuple[str, ...] = ()
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    attention: str = "matmul"
    remat: Remat = NO_REMAT
    plain: bool = False

    @nn.nowrap
    def make_clfe(self, name: str | None = None) -> CLFE:
        """The module of the CNN's local features; alone it takes what `clfe` has in each tree."""
        size = self.size
        return CLFE(
            dim=size.dim,
            patch=size.patch,
            stem=size.stem,
            widths=size.widths,
            blocks=size.blocks,
            inference_stages=self.batch_norm_inference_stages,
            remat=self.remat.clfe,
            plain=self.plain,
            name=name,
            **types_of(self),
        )

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        *,
        examples: jax.Array | None = None,
        local_features: Sequence[jax.Array] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Score crops.

        Args:
            images: (B, crop, crop, 3), float, normalised by (x/255 − 0.5)/0.5.
            train: dropout on (needs the rng `dropout`) and BatchNorm on batch statistics (apply
                with `mutable=["batch_stats"]`).
            examples: (B,) int32, numbers that dropout tells the examples apart by; 0 … B − 1 when
                None.
            local_features: what `make_clfe` gave for the images, so that only the rest is computed.

        Returns:
            The scores (B,) float32, and every intermediate by name: `vgfe_0…3` (B, N, vit_dim),
            `clfe_0…2`, `local`, `stage_0…3`, each (B, N, d), and `pooled` (B, d).

        Raises:
            GlpiError: the images have another shape.
        """
        size = self.size
        if images.shape[1:] != (size.crop, size.crop, 3):
            raise GlpiError(
                f"the model takes crops of shape (batch, {size.crop}, {size.crop}, 3), "
                f"got {images.shape}"
            )
        images = images.astype(self.dtype)
        if not train:
            examples = None  # no dropout
        elif examples is None:
            examples = jnp.arange(len(images))
        taps: dict[str, jax.Array] = {}

        types = types_of(self)
        vit = ViT(
            dim=size.vit_dim,
            heads=size.heads,
            mlp_hidden=size.mlp_hidden,
            patch=size.patch,
            taps=size.taps,
            attention=self.attention,
            remat=self.remat.vgfe,
            plain=self.plain,
            name="vgfe",
            **types,
        )
        _, blocks = vit(images)
        global_features = [blocks[f"block_{i}"] for i in size.taps]
        for i, tokens in enumerate(global_features):
            taps[f"vgfe_{i}"] = tokens

        if local_features is None:
            local_features = self.make_clfe("clfe")(images, train)
        for i, tokens in enumerate(local_features):
            taps[f"clfe_{i}"] = tokens

        x = jnp.concatenate(local_features, -1).swapaxes(1, 2)  # (B, 3d, N)
        module = rematerialized(CWSA, self.remat.integration, static=None)
        cwsa = functools.partial(module, dropout=self.dropout, **types)
        x = cwsa(name="local_cwsa")(x, examples).swapaxes(1, 2)
        x = torch_dense(size.dim, fan_in=x.shape[-1], name="local_projection", **types)(x)
        taps["local"] = x  # (B, N, d)

        for i, tokens in enumerate(global_features):
            x = jnp.concatenate([tokens, x], -1).swapaxes(1, 2)  # (B, vit_dim + d, N)
            x = cwsa(name=f"cwsa{i + 1}")(x, examples)
            x = SIEM(features=size.dim, name=f"siem{i + 1}", **types)(x)
            taps[f"stage_{i}"] = x  # (B, N, d)

        pooled = jnp.mean(x.astype(jnp.float32), 1)
        taps["pooled"] = pooled
        head = QualityHead(dropout=self.dropout, name="quality_head", **types)
        return head(pooled, examples), taps


def build(
    name: str,
    *,
    dropout: float,
    dtype: str = "float32",
    param_dtype: str = "float32",
    batch_norm_inference_stages: tuple[str, ...] = (),
    attention: str = "matmul",
    remat: Remat = NO_REMAT,
    plain_operators: Sequence[str] = (),
) -> GLPI:
    """Make a GLPI of a named size.

    Args:
        name: a key of `SIZES`.
        dropout: rate of every dropout, 0 ≤ rate < 1.
        dtype, param_dtype: of the computation and of the parameters, "float32" or "bfloat16".
        batch_norm_inference_stages, attention, remat: see `GLPI`.
        plain_operators: of `PLATFORMS`; where JAX runs on one of them the model is `plain`.

    Raises:
        GlpiError: a name, a dtype, the attention, a rematerialization, a platform or a part of the
            ResNet is unknown.
    """
    _check("model size", name, SIZES)
    size, stages = SIZES[name], tuple(batch_norm_inference_stages)
    _check("compute dtype", dtype, DTYPES)
    _check("parameter dtype", param_dtype, DTYPES)
    _check("attention", attention, ATTENTIONS)
    for part, what in dataclasses.asdict(remat).items():
        _check("rematerialization", what, REMATERIALIZATIONS, f" of {part}")
    for platform in plain_operators:
        _check("platform", platform, PLATFORMS, " in plain_operators")
    parts = ("stem", *(f"layer{i}" for i in range(1, len(size.widths) + 1)))
    for stage in stages:
        _check("part of the ResNet", stage, parts, " in batch_norm_inference_stages")
    return GLPI(
        size=size,
        dropout=dropout,
        batch_norm_inference_stages=stages,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
        attention=attention,
        remat=remat,
        plain=jax.default_backend() in plain_operators,
    )


def _check(what: str, value: str, known: Collection[str], where: str = "") -> None:
    if value not in known:
        raise GlpiError(f"unknown {what} {value!r}{where}: choose of {', '.join(known)}")
