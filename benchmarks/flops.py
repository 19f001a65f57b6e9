"""FLOPs and memory traffic of the model, counted by hand, and what they allow on a device.

    python benchmarks/flops.py [--model glpi_s16] [--what train|score] [--batch N]
                               [--dtype bfloat16] [--tflops PEAK] [--bandwidth TB_PER_S]

One line for each part: GFLOP and megabytes an image, FLOPs a byte, the milliseconds that the peak
and the bandwidth allow at best, and which of the two binds. Nothing is run.

A multiplication and an addition are two FLOPs. Only products with weights and of activations count,
as is usual for model FLOPs; padding counts as if it were image. What training adds to the forward
pass follows from what the recipe trains: a layer's input gradient costs as much as the layer if
anything before it is trained, its weight gradient as much again if it is trained itself, and a
product of two activations twice as much as itself.

The traffic takes every array that a layer reads or writes as moved once from or to memory: inputs,
weights and results of products, with activations and additions fused into them; three passes over
what a normalisation or a softmax works on, of which it holds float32 in one. It is neither a lower
bound (a fused attention keeps its weights on the chip) nor what a compiler reaches.
"""

import argparse
import dataclasses
from collections.abc import Mapping

BYTES = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one image costs in one layer.

    Attributes:
        part: of the model, for the table.
        flops: of the forward pass; 0 for a normalisation or softmax.
        values: that the forward pass reads and writes, without weights.
        weights: that it reads, once for the whole batch.
        gradients: passes of as many FLOPs and values that the backward pass adds, 0 to 2.
    """

    part: str
    flops: int
    values: int
    weights: int
    gradients: int


class Count:
    """Collects the layers, in the order in which gradients flow back."""

    def __init__(self, multipliers: Mapping[str, float | None]):
        """Start with nothing.

        Args:
            multipliers: of the learning rate by parameter path, None for frozen; see
                `glpi_jax.training.optimizer.learning_rate_multipliers`.
        """
        self.multipliers = multipliers
        self.layers: list[Layer] = []

    def trained(self, path: str) -> bool:
        """Whether the recipe trains a parameter."""
        return self.multipliers[path] is not None

    def dense(
        self,
        part: str,
        path: str,
        rows: int,
        inputs: int,
        outputs: int,
        behind: bool,
        taps: int = 1,
    ) -> bool:
        """Add a layer with weights: rows · inputs · taps · outputs multiplications.

        Args:
            part: see `Layer`.
            path: of the layer, which has a `kernel`.
            rows: positions of the result.
            inputs, outputs: channels.
            behind: anything before it is trained.
            taps: positions of its input that one of the result sees, in a convolution.

        Returns:
            Whether anything up to and with this layer is trained.
        """
        trained = self.trained(f"{path}/kernel")
        weights = inputs * taps * outputs
        values = rows * (inputs + outputs)
        self.layers.append(Layer(part, 2 * rows * weights, values, weights, behind + trained))
        return behind or trained

    def product(self, part: str, rows: int, inner: int, columns: int, behind: bool) -> None:
        """Add a product of two activations, (rows, inner) @ (inner, columns)."""
        values = rows * inner + inner * columns + rows * columns
        self.layers.append(Layer(part, 2 * rows * inner * columns, values, 0, 2 * behind))

    def passes(self, part: str, values: int, behind: bool) -> None:
        """Add a normalisation or a softmax, which moves data and counts no FLOPs."""
        # Statistics read it, the result reads it again and is written; float32 counts twice.
        self.layers.append(Layer(part, 0, 4 * values, 0, int(behind)))


def count(size, multipliers: Mapping[str, float | None]) -> list[Layer]:
    """All layers of one image.

    Args:
        size: `glpi_jax.models.glpi.Size`.
        multipliers: see `Count`.
    """
    total = Count(multipliers)
    _vit(total, size)
    features = _resnet(total, size)
    for i, (channels, behind) in enumerate(features, 1):
        taps = (size.patch // 2 ** (i + 1)) ** 2
        path = f"clfe/patch_embed{i}"
        # A patch is read whole, and no position twice.
        total.dense("CNN embeddings", path, size.tokens, channels * taps, size.dim, behind)
    _integration(total, size)
    return total.layers


def _vit(total: Count, size) -> None:
    """Blocks up to the last tap, N + 1 tokens: 2·T·(4d² + 2dh) by weights, 4·T²·d attention."""
    part, tokens, dim = "ViT", size.tokens + 1, size.dim
    pixels = 3 * size.patch**2
    behind = total.dense(part, "vgfe/patch_embed", size.tokens, pixels, dim, False)
    behind |= total.trained("vgfe/cls_token") or total.trained("vgfe/pos_embed")
    for i in range(max(size.taps) + 1):
        path = f"vgfe/blocks_{i}"
        total.passes(part, tokens * dim, behind)
        behind |= total.dense(part, f"{path}/attn/qkv", tokens, dim, 3 * dim, behind)
        for _ in range(size.heads):
            total.product("ViT attention", tokens, dim // size.heads, tokens, behind)
            total.passes("ViT attention", tokens**2, behind)
            total.product("ViT attention", tokens, tokens, dim // size.heads, behind)
        behind |= total.dense(part, f"{path}/attn/proj", tokens, dim, dim, behind)
        total.passes(part, tokens * dim, behind)
        behind |= total.dense(part, f"{path}/mlp/fc1", tokens, dim, size.mlp_hidden, behind)
        behind |= total.dense(part, f"{path}/mlp/fc2", tokens, size.mlp_hidden, dim, behind)


def _resnet(total: Count, size) -> list[tuple[int, bool]]:
    """Stem and stages, 2·(H·W)·k²·C_in·C_out each convolution; channels of each, if trained."""
    expansion = 4
    side, channels = size.crop // 2, size.stem
    root = "clfe/backbone"
    part = "ResNet stem"
    behind = total.dense(part, f"{root}/conv1", side**2, 3, channels, False, taps=49)
    total.passes(part, side**2 * channels, behind)
    side //= 2
    features = []
    for stage, (width, blocks) in enumerate(zip(size.widths, size.blocks, strict=True), 1):
        part, outputs = f"ResNet layer{stage}", expansion * width
        for i in range(blocks):
            path = f"{root}/layer{stage}_{i}"
            before, at_input = side, behind
            if stage > 1 and i == 0:
                side //= 2
            behind = total.dense(part, f"{path}/conv1", before**2, channels, width, at_input)
            total.passes(part, before**2 * width, behind)
            behind = total.dense(part, f"{path}/conv2", side**2, width, width, behind, taps=9)
            total.passes(part, side**2 * width, behind)
            behind = total.dense(part, f"{path}/conv3", side**2, width, outputs, behind)
            total.passes(part, side**2 * outputs, behind)
            if i == 0:
                shortcut = f"{path}/downsample_conv"
                behind |= total.dense(part, shortcut, side**2, channels, outputs, at_input)
                total.passes(part, side**2 * outputs, behind)
            channels = outputs
        features.append((channels, behind))
    return features


def _integration(total: Count, size) -> None:
    """CWSA 2·(3·C·N² + 2·C²·N), SIEM 2·N·9·2d·d, head 2·(d² + d); all behind trained layers."""
    tokens, dim = size.tokens, size.dim

    def cwsa(path: str, channels: int) -> None:
        for name in ("c_q", "c_k", "c_v"):
            total.dense("CWSA", f"{path}/{name}", channels, tokens, tokens, True)
        for _ in range(2):  # q and k to length 1
            total.passes("CWSA", channels * tokens, True)
        total.product("CWSA attention", channels, tokens, channels, True)
        total.passes("CWSA attention", channels**2, True)
        total.product("CWSA attention", channels, channels, tokens, True)
        total.passes("CWSA", channels * tokens, True)

    cwsa("local_cwsa", 3 * dim)
    total.dense("SIEM, projection, head", "local_projection", tokens, 3 * dim, dim, True)
    for i in range(1, 5):
        cwsa(f"cwsa{i}", 2 * dim)
        path = f"siem{i}/conv"
        total.dense("SIEM, projection, head", path, tokens, 2 * dim, dim, True, taps=9)
    total.dense("SIEM, projection, head", "quality_head/fc1", 1, dim, dim, True)
    total.dense("SIEM, projection, head", "quality_head/fc2", 1, dim, 1, True)


def flops_of(layers: list[Layer], what: str) -> int:
    """FLOPs of one image: of the forward pass ("score"), or with the gradient ("train")."""
    return sum(x.flops * (1 + (x.gradients if what == "train" else 0)) for x in layers)


def bytes_of(layers: list[Layer], what: str, batch: int, value_bytes: int) -> float:
    """Bytes of one image, as its share of a batch; the optimizer's are left out."""
    moved = 0.0
    for x in layers:
        passes = 1 + (x.gradients if what == "train" else 0)
        moved += passes * value_bytes * (x.values + x.weights / batch)
    return moved


def official_multipliers(model) -> dict[str, float | None]:
    """What the official recipe trains of a model, by path."""
    import jax
    from flax import traverse_util

    from glpi_jax.core.config import load_config, shipped_config
    from glpi_jax.training.optimizer import learning_rate_multipliers
    from glpi_jax.training.state import init_variables, key_of

    params = jax.eval_shape(lambda key: init_variables(model, key), key_of(0))["params"]
    paths = list(traverse_util.flatten_dict(params, sep="/"))
    return learning_rate_multipliers(paths, load_config(shipped_config("base")).optimizer.rules)


def main() -> None:
    """Print the table."""
    from glpi_jax.models.glpi import SIZES, build

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=SIZES, default="glpi_s16")
    parser.add_argument("--what", choices=("train", "score"), default="train")
    parser.add_argument("--batch", type=int, default=32, help="images that share the weights")
    parser.add_argument("--dtype", choices=BYTES, default="bfloat16")
    parser.add_argument(
        "--tflops", type=float, default=989.0, help="peak (default 989: H200, bf16)"
    )
    parser.add_argument("--bandwidth", type=float, default=4.8, help="TB/s (default 4.8: H200)")
    options = parser.parse_args()

    layers = count(SIZES[options.model], official_multipliers(build(options.model, dropout=0.5)))
    line = "{:>24}  {:>9}  {:>9}  {:>9}  {:>11}  {:>11}  {}"
    print(line.format("", "GFLOP", "MB", "FLOP/byte", "compute ms", "memory ms", "bound by"))
    parts = list(dict.fromkeys(x.part for x in layers))
    sums = [0.0] * 5
    for part in parts:
        own = [x for x in layers if x.part == part]
        flops = flops_of(own, options.what)
        moved = bytes_of(own, options.what, options.batch, BYTES[options.dtype])
        compute = 1e3 * options.batch * flops / (options.tflops * 1e12)
        memory = 1e3 * options.batch * moved / (options.bandwidth * 1e12)
        sums = [
            x + y
            for x, y in zip(
                sums, (flops, moved, compute, memory, max(compute, memory)), strict=True
            )
        ]
        _print_line(line, part, flops, moved, compute, memory)
    _print_line(line, "all", *sums[:4])
    slowest = sums[4]
    print(
        f"\n{options.what} at batch {options.batch}: {slowest:.2f} ms where each part takes the"
        f" longer of its two, {1e3 * options.batch / slowest:.0f} images/s, MFU"
        f" {sums[2] / slowest:.0%}; 40 % MFU is {0.4e3 * options.batch / sums[2]:.0f} images/s"
    )


def _print_line(
    line: str, part: str, flops: float, moved: float, compute: float, memory: float
) -> None:
    numbers = (f"{flops / 1e9:.3f}", f"{moved / 1e6:.2f}", f"{flops / moved:.0f}")
    binding = "compute" if compute > memory else "memory"
    print(line.format(part, *numbers, f"{compute:.3f}", f"{memory:.3f}", binding))


if __name__ == "__main__":
    main()
