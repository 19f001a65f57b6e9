"""Names of the official PyTorch state dict and where each entry lives in the Flax variables.

One table serves both directions, in the order of the official file. A `{}` stands for a number and
is the same number on both sides. Sources: the authors' modules, timm's `vit_*` and torchvision's
ResNet names.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable

# How an array changes its axes between torch and Flax.
SAME = "same"  # vectors, cls_token, pos_embed
LINEAR = "linear"  # (out, in) <-> (in, out)
CONV = "conv"  # (out, in, kh, kw) <-> (kh, kw, in, out)

# The collection of entries that no Flax variable holds: they never reach the score. So do the ViT
# blocks behind the last tap, whose rule is that of the other blocks.
CARRIED = "carried"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of the table: torch name, Flax collection and path, change of axes."""

    torch: str
    collection: str
    flax: str
    layout: str


def _weight_and_bias(torch: str, flax: str, layout: str, collection: str = "params") -> list[Rule]:
    weight = "scale" if layout == SAME else "kernel"
    return [
        Rule(f"{torch}.weight", collection, f"{flax}/{weight}", layout),
        Rule(f"{torch}.bias", collection, f"{flax}/bias", SAME),
    ]


def _batch_norm(torch: str, flax: str) -> list[Rule]:
    return [
        *_weight_and_bias(torch, flax, SAME),
        Rule(f"{torch}.running_mean", "batch_stats", f"{flax}/mean", SAME),
        Rule(f"{torch}.running_var", "batch_stats", f"{flax}/var", SAME),
        Rule(f"{torch}.num_batches_tracked", CARRIED, f"{flax}/count", SAME),
    ]


def _vit(torch: str, flax: str) -> list[Rule]:
    block_torch, block_flax = f"{torch}.blocks.{{}}", f"{flax}/blocks_{{}}"
    return [
        Rule(f"{torch}.cls_token", "params", f"{flax}/cls_token", SAME),
        Rule(f"{torch}.pos_embed", "params", f"{flax}/pos_embed", SAME),
        *_weight_and_bias(f"{torch}.patch_embed.proj", f"{flax}/patch_embed", CONV),
        *_weight_and_bias(f"{block_torch}.norm1", f"{block_flax}/norm1", SAME),
        *_weight_and_bias(f"{block_torch}.attn.qkv", f"{block_flax}/attn/qkv", LINEAR),
        *_weight_and_bias(f"{block_torch}.attn.proj", f"{block_flax}/attn/proj", LINEAR),
        *_weight_and_bias(f"{block_torch}.norm2", f"{block_flax}/norm2", SAME),
        *_weight_and_bias(f"{block_torch}.mlp.fc1", f"{block_flax}/mlp/fc1", LINEAR),
        *_weight_and_bias(f"{block_torch}.mlp.fc2", f"{block_flax}/mlp/fc2", LINEAR),
        *_weight_and_bias(f"{torch}.norm", f"{flax}/norm", SAME, collection=CARRIED),
        *_weight_and_bias(f"{torch}.head", f"{flax}/head", LINEAR, collection=CARRIED),
    ]


def _resnet(torch: str, flax: str) -> list[Rule]:
    block_torch, block_flax = f"{torch}.layer{{}}.{{}}", f"{flax}/layer{{}}_{{}}"
    rules = [
        Rule(f"{torch}.conv1.weight", "params", f"{flax}/conv1/kernel", CONV),
        *_batch_norm(f"{torch}.bn1", f"{flax}/bn1"),
    ]
    for i in (1, 2, 3):
        conv = f"{block_torch}.conv{i}.weight"
        rules.append(Rule(conv, "params", f"{block_flax}/conv{i}/kernel", CONV))
        rules += _batch_norm(f"{block_torch}.bn{i}", f"{block_flax}/bn{i}")
    projection = f"{block_torch}.downsample.0.weight"
    rules.append(Rule(projection, "params", f"{block_flax}/downsample_conv/kernel", CONV))
    rules += _batch_norm(f"{block_torch}.downsample.1", f"{block_flax}/downsample_bn")
    return rules


def _cwsa(torch: str, flax: str) -> list[Rule]:
    rules = []
    for part in ("c_q", "c_k", "c_v"):
        rules += _weight_and_bias(f"{torch}.{part}", f"{flax}/{part}", LINEAR)
    return rules + _weight_and_bias(f"{torch}.norm", f"{flax}/norm", SAME)


RULES: tuple[Rule, ...] = (
    *_vit("vgfe.backbone", "vgfe"),
    *_resnet("clfe.backbone", "clfe/backbone"),
    *_weight_and_bias("clfe.patch_embed{}.proj", "clfe/patch_embed{}", CONV),
    *_cwsa("local_cwsa", "local_cwsa"),
    *_weight_and_bias("local_projection", "local_projection", LINEAR),
    *_cwsa("cwsa{}", "cwsa{}"),
    Rule("siem{}.conv.weight", "params", "siem{}/conv/kernel", CONV),
    *_weight_and_bias("quality_head.layers.0", "quality_head/fc1", LINEAR),
    *_weight_and_bias("quality_head.layers.3", "quality_head/fc2", LINEAR),
)

# Prefixes of older official files, and what they are called now.
LEGACY_PREFIXES: tuple[tuple[str, str], ...] = (
    ("transformer.", "vgfe.backbone."),
    ("cnn.", "clfe.backbone."),
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
            numbers = _match(rule.flax, path)
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


def in_official_order(names: Iterable[str]) -> list[str]:
    """Sort official names as the official state dict has them.

    Raises:
        KeyError: no rule covers a name.
    """

    def position(name: str) -> tuple[int, tuple[int, ...], int]:
        index, numbers = _rule_of(name)
        return _GROUPS[index], tuple(map(int, numbers)), index

    return sorted(names, key=position)


def current_name(name: str) -> str:
    """The present name of an official entry, legacy prefixes and `module.` (DDP) taken off."""
    name = name.removeprefix("module.")
    for old, new in LEGACY_PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))


def _match(template: str, name: str) -> tuple[str, ...] | None:
    found = _pattern(template).fullmatch(name)
    return found.groups() if found else None


def _rule_of(name: str) -> tuple[int, tuple[str, ...]]:
    """Place in the table of the rule for an official name, and the numbers in the name."""
    for index, rule in enumerate(RULES):
        numbers = _match(rule.torch, name)
        if numbers is not None:
            return index, numbers
    raise KeyError(f"no porting rule covers {name}")


def _groups() -> list[int]:
    """For each rule the number of its group: a module that is repeated stays together."""
    stems = [rule.torch[: rule.torch.rfind("{}") + 1] for rule in RULES]
    runs = itertools.groupby(stems)
    return [number for number, (_, run) in enumerate(runs) for _ in run]


_GROUPS = _groups()
