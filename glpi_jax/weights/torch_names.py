"""Names of the official PyTorch state dict and where each entry lives in the Flax variables.

One table serves both directions, in the order of the official file. A `{}` stands for a number and
is the same number on both sides. Sources: the authors' modules, timm's `vit_*` and torchvision's
ResNet names.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

VIT_PREFIX = "vgfe.backbone."  # of timm's names in an official GLPI checkpoint
RESNET_PREFIX = "clfe.backbone."  # of torchvision's names in it

# How an array changes its axes between torch and Flax.
SAME = "same"  # vectors, cls_token, pos_embed
LINEAR = "linear"  # (out, in) <-> (in, out)
CONV = "conv"  # (out, in, kh, kw) <-> (kh, kw, in, out)
AXES = {LINEAR: (1, 0), CONV: (2, 3, 1, 0)}  # of torch, in the order of Flax

# The collection of entries that no Flax variable holds: they never reach the score. So do the ViT
# blocks behind the last tap, whose rule is that of the other blocks.
CARRIED = "carried"


class Rule(NamedTuple):
    """One line of the table: torch name, Flax collection and path, change of axes."""

    torch: str
    collection: str
    flax: str
    layout: str


# Entries of each kind of module: ends of the torch name and of the Flax path, collection, axes.
_KERNEL = ((".weight", "/kernel", "params", CONV),)
_CONV = (*_KERNEL, (".bias", "/bias", "params", SAME))
_LINEAR = ((".weight", "/kernel", "params", LINEAR), (".bias", "/bias", "params", SAME))
_NORM = ((".weight", "/scale", "params", SAME), (".bias", "/bias", "params", SAME))
_BATCH_NORM = (
    *_NORM,
    (".running_mean", "/mean", "batch_stats", SAME),
    (".running_var", "/var", "batch_stats", SAME),
    (".num_batches_tracked", "/count", CARRIED, SAME),
)
_CARRIED_NORM = ((".weight", "/scale", CARRIED, SAME), (".bias", "/bias", CARRIED, SAME))
_CARRIED_LINEAR = ((".weight", "/kernel", CARRIED, LINEAR), (".bias", "/bias", CARRIED, SAME))

_VIT_BLOCK = (VIT_PREFIX + "blocks.{}.", "vgfe/blocks_{}/")
_RESNET_BLOCK = (RESNET_PREFIX + "layer{}.{}.", "clfe/backbone/layer{}_{}/")

# What comes before a module's name on both sides, its name on both sides, its kind.
_TABLE = (
    ((VIT_PREFIX, "vgfe/"), "cls_token", "cls_token", (("", "", "params", SAME),)),
    ((VIT_PREFIX, "vgfe/"), "pos_embed", "pos_embed", (("", "", "params", SAME),)),
    ((VIT_PREFIX, "vgfe/"), "patch_embed.proj", "patch_embed", _CONV),
    (_VIT_BLOCK, "norm1", "norm1", _NORM),
    (_VIT_BLOCK, "attn.qkv", "attn/qkv", _LINEAR),
    (_VIT_BLOCK, "attn.proj", "attn/proj", _LINEAR),
    (_VIT_BLOCK, "norm2", "norm2", _NORM),
    (_VIT_BLOCK, "mlp.fc1", "mlp/fc1", _LINEAR),
    (_VIT_BLOCK, "mlp.fc2", "mlp/fc2", _LINEAR),
    ((VIT_PREFIX, "vgfe/"), "norm", "norm", _CARRIED_NORM),
    ((VIT_PREFIX, "vgfe/"), "head", "head", _CARRIED_LINEAR),
    ((RESNET_PREFIX, "clfe/backbone/"), "conv1", "conv1", _KERNEL),
    ((RESNET_PREFIX, "clfe/backbone/"), "bn1", "bn1", _BATCH_NORM),
    (_RESNET_BLOCK, "conv1", "conv1", _KERNEL),
    (_RESNET_BLOCK, "bn1", "bn1", _BATCH_NORM),
    (_RESNET_BLOCK, "conv2", "conv2", _KERNEL),
    (_RESNET_BLOCK, "bn2", "bn2", _BATCH_NORM),
    (_RESNET_BLOCK, "conv3", "conv3", _KERNEL),
    (_RESNET_BLOCK, "bn3", "bn3", _BATCH_NORM),
    (_RESNET_BLOCK, "downsample.0", "downsample_conv", _KERNEL),
    (_RESNET_BLOCK, "downsample.1", "downsample_bn", _BATCH_NORM),
    (("clfe.", "clfe/"), "patch_embed{}.proj", "patch_embed{}", _CONV),
    *((("local_cwsa.", "local_cwsa/"), part, part, _LINEAR) for part in ("c_q", "c_k", "c_v")),
    (("local_cwsa.", "local_cwsa/"), "norm", "norm", _NORM),
    (("", ""), "local_projection", "local_projection", _LINEAR),
    *((("cwsa{}.", "cwsa{}/"), part, part, _LINEAR) for part in ("c_q", "c_k", "c_v")),
    (("cwsa{}.", "cwsa{}/"), "norm", "norm", _NORM),
    (("siem{}.", "siem{}/"), "conv", "conv", _KERNEL),
    (("quality_head.", "quality_head/"), "layers.0", "fc1", _LINEAR),
    (("quality_head.", "quality_head/"), "layers.3", "fc2", _LINEAR),
)
RULES: tuple[Rule, ...] = tuple(
    Rule(f"{before[0]}{torch}{leaf}", collection, f"{before[1]}{flax}{flax_leaf}", layout)
    for before, torch, flax, kind in _TABLE
    for leaf, flax_leaf, collection, layout in kind
)

# Prefixes of older official files, and what they are called now.
LEGACY_PREFIXES: tuple[tuple[str, str], ...] = (
    ("transformer.", VIT_PREFIX),
    ("cnn.", RESNET_PREFIX),
    *((f"patch_embed{i}.", f"clfe.patch_embed{i}.") for i in (1, 2, 3)),
    ("att_cnn.", "local_cwsa."),
    ("proj.", "local_projection."),
    *((f"fusion{i}.", f"cwsa{i}.") for i in (1, 2, 3, 4)),
    *((f"conv{i}.", f"siem{i}.conv.") for i in (1, 2, 3, 4)),
    ("out.", "quality_head.layers."),
)


def to_torch_name(collection: str, path: str) -> tuple[str, str]:
    """Torch name and layout of a Flax entry, e.g. ("params", "vgfe/blocks_3/norm1/scale").

    Raises:
        KeyError: no rule covers the entry.
    """
    for rule in RULES:
        if rule.collection == collection:
            numbers = match_template(rule.flax, path)
            if numbers is not None:
                return rule.torch.format(*numbers), rule.layout
    raise KeyError(f"no porting rule covers {collection}/{path}")


def to_flax_name(name: str) -> tuple[str, str, str]:
    """Collection, path and layout of an official entry, the other way round.

    Whether a model holds the entry depends on its size: the collection of a block behind the last
    tap is `params` too.

    Raises:
        KeyError: no rule covers the name.
    """
    index, numbers = _rule_of(name)
    rule = RULES[index]
    return rule.collection, rule.flax.format(*numbers), rule.layout


def to_flax_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """Change axes from torch's order to Flax's."""
    return np.ascontiguousarray(array.transpose(AXES.get(layout, range(array.ndim))))


def to_official_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """Undo `to_flax_layout`."""
    return np.ascontiguousarray(array.transpose(np.argsort(AXES.get(layout, range(array.ndim)))))


def in_official_order(names: Iterable[str]) -> list[str]:
    """Sort official names as the official state dict has them.

    Raises:
        KeyError: no rule covers a name.
    """

    def position(name: str) -> tuple[int, tuple[int, ...], int]:
        index, numbers = _rule_of(name)
        return _GROUPS[index], tuple(map(int, numbers)), index

    return sorted(names, key=position)


def without_ddp(name: str) -> str:
    """A name without the prefix of DistributedDataParallel."""
    return name.removeprefix("module.")


def current_name(name: str) -> str:
    """The present name of an official entry, legacy prefixes and DDP's taken off."""
    name = without_ddp(name)
    for old, new in LEGACY_PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))


def match_template(template: str, name: str) -> tuple[str, ...] | None:
    """The numbers that a name has where the template has `{}`; None if it does not fit."""
    found = _pattern(template).fullmatch(name)
    return found.groups() if found else None


def renamed(module: str, templates: Mapping[str, str]) -> str | None:
    """Another name of a module, from a table of templates; None if it has none."""
    for template, other in templates.items():
        numbers = match_template(template, module)
        if numbers is not None:
            return other.format(*numbers)
    return None


def _rule_of(name: str) -> tuple[int, tuple[str, ...]]:
    """Place in the table of the rule for an official name, and the numbers in the name."""
    for index, rule in enumerate(RULES):
        numbers = match_template(rule.torch, name)
        if numbers is not None:
            return index, numbers
    raise KeyError(f"no porting rule covers {name}")


def _groups() -> list[int]:
    """For each rule the number of its group: a module that is repeated stays together."""
    stems = [rule.torch[: rule.torch.rfind("{}") + 1] for rule in RULES]
    runs = itertools.groupby(stems)
    return [number for number, (_, run) in enumerate(runs) for _ in run]


_GROUPS = _groups()
