"""What a run tells on stderr as it begins, once for all processes."""

import re
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from glpi_jax.data.identical import identical_images
from glpi_jax.data.sources import Database
from glpi_jax.data.splits import Split, split_references, trained_references
from glpi_jax.distributed.mesh import FSDP_AXIS
from glpi_jax.distributed.ranks import is_first
from glpi_jax.evaluation.protocols import Plan
from glpi_jax.workflow.workdir import SPLIT_FILE

_SHOWN_GROUPS = 10
# Where a file of `config.model.pretrained` goes.
_BACKBONES = {"vit": "vgfe/", "resnet": "clfe/backbone/"}


def tell_left_out(database: Database) -> None:
    """Say on stderr which rows `skip_bad` left out."""
    if database.left_out and is_first():
        print(f"{database.name}: left out {len(database.left_out)} labels:", file=sys.stderr)
        print("\n".join(f"  {reason}" for reason in database.left_out), file=sys.stderr)


def tell_identical(database: Database, split: Split) -> None:
    """Print one line about images whose files are identical, and their part, as a run starts."""
    groups = identical_images(database, split) if is_first() else []
    if not groups:
        return
    described = []
    for images, part, left_out in islice(groups, _SHOWN_GROUPS):
        ending = f", without {', '.join(left_out)}" if left_out else ""
        described.append(f"{' = '.join(images)} ({part}{ending})")
    rest = len(groups) - len(described)
    print(
        f"{database.name}: identical images stay in one part: {'; '.join(described)}"
        f"{f'; and {rest} more groups, see {SPLIT_FILE}' if rest else ''}",
        file=sys.stderr,
    )


def tell_frozen(config: ConfigDict, multipliers: Mapping[str, float | None]) -> None:
    """Warn on stderr, as a run begins, of frozen layers that no file gives weights for.

    `multipliers`: path of each parameter → its multiplier of the learning rate, None if frozen.
    """
    if config.init_from or not is_first():
        return
    loaded = [prefix for part, prefix in _BACKBONES.items() if config.model.pretrained[part]]
    frozen: dict[str, list[str]] = {}  # paths by their rule
    for path, multiplier in multipliers.items():
        if multiplier is None and not path.startswith(tuple(loaded)):
            rules = (pattern for pattern, _ in config.optimizer.rules)
            rule = next(pattern for pattern in rules if re.fullmatch(pattern, path))
            frozen.setdefault(rule, []).append(path)
    for rule, paths in frozen.items():
        keys = [
            f"config.model.pretrained.{part}"
            for part, prefix in _BACKBONES.items()
            if any(path.startswith(prefix) for path in paths)
        ]
        give = f"give {' and '.join(keys)}, or " if keys else ""
        print(
            f"warning: config.optimizer.rules freezes {len(paths)} parameters at random values"
            f" ({paths[0]}{', …' if len(paths) > 1 else ''}): {give}change the rule {rule!r}, None"
            " to a number such as 1.0",
            file=sys.stderr,
        )


def tell_parameters(params: Mapping[str, Any], multipliers: Mapping[str, float | None]) -> None:
    """Print a line for each top-level module of a model that begins to train, and one for all.

    Leaves of `params` have `size`, `dtype` and `sharding`; `multipliers` as in `tell_frozen`.
    """
    if not is_first():
        return
    flat = traverse_util.flatten_dict(params, sep="/")
    modules: dict[str, dict[str, list[str]]] = {}  # kind → name → paths; cwsa1 is of the kind cwsa
    for path in flat:
        name = path.partition("/")[0]
        modules.setdefault(name.rstrip("0123456789"), {}).setdefault(name, []).append(path)
    for names in modules.values():
        paths = [path for own in names.values() for path in own]
        heading = "–".join(dict.fromkeys((min(names), max(names))))
        print(f"parameters: {_overview(heading, paths, flat, multipliers)}", file=sys.stderr)
    print(f"parameters: {_overview('all', list(flat), flat, multipliers)}", file=sys.stderr)


def _overview(
    heading: str,
    paths: Sequence[str],
    flat: Mapping[str, Any],
    multipliers: Mapping[str, float | None],
) -> str:
    """Return e.g. "cwsa1–cwsa4 5,376 (0.02 MiB), trained, whole on each device"."""
    total = sum(flat[path].size for path in paths)
    mebibytes = sum(flat[path].size * flat[path].dtype.itemsize for path in paths) / 2**20
    frozen = sum(flat[path].size for path in paths if multipliers[path] is None)
    split = [path for path in paths if not flat[path].sharding.is_fully_replicated]
    training = {0: "trained", total: "frozen"}.get(frozen, f"{frozen:,} of them frozen")
    where = "whole on each device"
    if split:
        size = sum(flat[path].size for path in split)
        each = "" if size == total else f"{size:,} of them "
        where = f"{each}split by {flat[split[0]].sharding.mesh.shape[FSDP_AXIS]}"
    return f"{heading} {total:,} ({mebibytes:.2f} MiB), {training}, {where}"


def tell_seen(config: ConfigDict, plan: Plan) -> None:
    """Say on stderr, as a run begins, that the one it starts from has trained on what is tested."""
    if not config.init_from or not is_first():
        return
    for part in plan.reported:
        trained = trained_references(Path(config.init_from) / SPLIT_FILE, part.database)
        seen = sorted(trained.intersection(split_references(part.database, part.rows)))
        if seen:
            print(
                f"warning: config.init_from = '{config.init_from}' was trained on {len(seen)}"
                f" references of the {part.name} part ({', '.join(seen[:3])}"
                f"{', …' if seen[3:] else ''}), so that its results will be better than those of"
                " images that are new; start from a run with the same split",
                file=sys.stderr,
            )
