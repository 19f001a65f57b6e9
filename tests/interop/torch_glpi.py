"""GLPI assembled from torch.nn, independent of the Flax model, under the official names.

It stands in for the authors' code where that is not at hand: same parameters, same names and order
of the state dict, same arithmetic in training and evaluation. Sources: the paper (arXiv
2408.03885), and timm's and torchvision's names and semantics. Nothing here is imported by glpi_jax.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention of a ViT."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, dim))


class MLP(nn.Module):
    """Two linear layers and an exact GELU."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Convolution with kernel = stride, then tokens in row-major order."""

    def __init__(self, channels: int, dim: int, kernel: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel, stride=kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """timm's `vit_*_patch16_224`, whole; computed up to the last block that is asked for."""

    def __init__(self, crop: int, patch: int, dim: int, depth: int, heads: int, hidden: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (crop // patch) ** 2 + 1, dim))
        self.patch_embed = PatchEmbed(3, dim, patch)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 1000)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, images: Tensor, taps: tuple[int, ...]) -> list[Tensor]:
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        outputs = []
        for i in range(max(taps) + 1):
            x = self.blocks[i](x)
            if i in taps:
                outputs.append(x[:, 1:])
        return outputs


class VGFE(nn.Module):
    """Global features: chosen blocks of the ViT."""

    def __init__(self, backbone: ViT, taps: tuple[int, ...]):
        super().__init__()
        self.taps = taps
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.backbone(images, self.taps)


class Bottleneck(nn.Module):
    """torchvision's bottleneck, the stride on its 3×3 convolution."""

    def __init__(self, channels: int, width: int, stride: int, project: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False),
                nn.BatchNorm2d(4 * width),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's ResNet up to layer3; gives the outputs of layer1, layer2 and layer3."""

    def __init__(self, stem: int, widths: tuple[int, ...], blocks: tuple[int, ...]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
            layer = nn.Sequential()
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                layer.append(Bottleneck(channels, width, stride, project=i == 0))
                channels = 4 * width
            self.add_module(f"layer{stage}", layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        outputs = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            outputs.append(x)
        return outputs


class CLFE(nn.Module):
    """Local features: three stages of the ResNet, each embedded into the ViT's token grid."""

    def __init__(self, backbone: ResNet, dim: int, patch: int, widths: tuple[int, ...]):
        super().__init__()
        self.backbone = backbone
        for i, width in enumerate(widths, 1):
            kernel = patch // 2 ** (i + 1)  # the stages have strides 4, 8 and 16
            self.add_module(f"patch_embed{i}", PatchEmbed(4 * width, dim, kernel))

    def forward(self, images: Tensor) -> list[Tensor]:
        embeddings = (self.patch_embed1, self.patch_embed2, self.patch_embed3)
        stages = self.backbone(images)
        return [embed(stage) for embed, stage in zip(embeddings, stages, strict=True)]


class CWSA(nn.Module):
    """Channel-wise self-attention over (B, C, N)."""

    def __init__(self, tokens: int, dropout: float):
        super().__init__()
        self.c_q = nn.Linear(tokens, tokens)
        self.c_k = nn.Linear(tokens, tokens)
        self.c_v = nn.Linear(tokens, tokens)
        self.norm = nn.LayerNorm(tokens)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, tokens = x.shape
        q, k = F.normalize(self.c_q(x), dim=-1), F.normalize(self.c_k(x), dim=-1)
        y = torch.softmax(q @ k.mT * tokens**-0.5, -1) @ self.c_v(x)
        # The memory of the transposed y is read again as (C, N): no transpose back.
        y = y.transpose(1, 2).reshape(batch, channels, tokens)
        return x + self.norm(self.dropout(y))


class SIEM(nn.Module):
    """3×3 convolution over the grid of tokens: (B, C, N) to (B, N, d)."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        side = round(x.shape[-1] ** 0.5)
        return self.conv(x.unflatten(2, (side, side))).flatten(2).transpose(1, 2)


class QualityHead(nn.Module):
    """From the pooled feature to a score."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TorchGLPI(nn.Module):
    """The whole network; the arguments are the fields of `glpi_jax.models.glpi.Size`."""

    def __init__(
        self,
        crop: int = 224,
        patch: int = 16,
        vit_dim: int = 384,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_hidden: int = 1536,
        taps: tuple[int, ...] = (6, 7, 8, 9),
        stem: int = 64,
        widths: tuple[int, ...] = (64, 128, 256),
        blocks: tuple[int, ...] = (3, 4, 6),
        dropout: float = 0.5,
    ):
        super().__init__()
        tokens = (crop // patch) ** 2
        self.vgfe = VGFE(ViT(crop, patch, vit_dim, depth, heads, mlp_hidden), taps)
        self.clfe = CLFE(ResNet(stem, widths, blocks), dim, patch, widths)
        self.local_cwsa = CWSA(tokens, dropout)
        self.local_projection = nn.Linear(3 * dim, dim)
        for i in range(1, 5):
            self.add_module(f"cwsa{i}", CWSA(tokens, dropout))
        for i in range(1, 5):
            self.add_module(f"siem{i}", SIEM(vit_dim + dim, dim))
        self.quality_head = QualityHead(dim, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B,) of normalised images (B, 3, crop, crop)."""
        return self.stages(images)["score"]

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Every intermediate by the names that the Flax model has for them, and `score` (B,)."""
        global_features, local_features = self.vgfe(images), self.clfe(images)
        stages = {f"vgfe_{i}": tokens for i, tokens in enumerate(global_features)}
        stages |= {f"clfe_{i}": tokens for i, tokens in enumerate(local_features)}
        x = self.local_cwsa(torch.cat(local_features, -1).transpose(1, 2)).transpose(1, 2)
        stages["local"] = x = self.local_projection(x)
        steps = (
            (self.cwsa1, self.siem1),
            (self.cwsa2, self.siem2),
            (self.cwsa3, self.siem3),
            (self.cwsa4, self.siem4),
        )
        for i, (cwsa, siem) in enumerate(steps):
            x = siem(cwsa(torch.cat([global_features[i], x], -1).transpose(1, 2)))
            stages[f"stage_{i}"] = x
        stages["pooled"] = x.mean(1)
        stages["score"] = self.quality_head(stages["pooled"])[:, 0]
        return stages

    def freeze(self) -> list[nn.Parameter]:
        """Freeze what the official recipe freezes; returns the rest, in order.

        BatchNorm goes on in training mode, also in the frozen stages.
        """
        vit, resnet = self.vgfe.backbone, self.clfe.backbone
        frozen = [vit.patch_embed, *vit.blocks[:5], resnet.conv1, resnet.bn1]
        for module in (*frozen, resnet.layer1, resnet.layer2):
            module.requires_grad_(False)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def official_adam(parameters: list[nn.Parameter], learning_rate: float = 1e-5) -> torch.optim.Adam:
    """The official optimizer: L2 decay in the gradient."""
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=1e-5)


def train_step(
    model: TorchGLPI, optimizer: torch.optim.Optimizer, images: Tensor, scores: Tensor
) -> float:
    """One step on the L1 loss; returns it. The schedule is the caller's."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    loss = F.l1_loss(model(images), scores)
    loss.backward()
    optimizer.step()
    return loss.item()
