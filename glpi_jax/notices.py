"""What a run tells on stderr as it begins, once for all processes."""

import sys
from itertools import islice
from pathlib import Path

from ml_collections import ConfigDict

from glpi_jax.data.identical import identical_images
from glpi_jax.data.sources import Database
from glpi_jax.data.splits import Split, split_references, trained_references
from glpi_jax.evaluation.protocols import Plan
from glpi_jax.training.processes import is_first
from glpi_jax.workdir import RUN_FILE, SPLIT_FILE

_SHOWN_GROUPS = 10


def tell_left_out(database: Database) -> None:
    """Say on stderr which rows `skip_bad` left out."""
    if database.left_out and is_first():
        print(f"{database.name}: left out {len(database.left_out)} labels:", file=sys.stderr)
        print("\n".join(f"  {reason}" for reason in database.left_out), file=sys.stderr)


def tell_identical(database: Database, split: Split, workdir: Path) -> None:
    """Print one line about images whose files are identical, and their part, as a run starts."""
    if not is_first() or (workdir / RUN_FILE).is_file():
        return
    groups = identical_images(database, split)
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


def tell_frozen(config: ConfigDict, workdir: Path) -> None:
    """Say on stderr, as a run begins, that layers stay as the seed has drawn them."""
    frozen = any(multiplier is None for _, multiplier in config.optimizer.rules)
    if frozen and is_first() and not (workdir / RUN_FILE).is_file():
        print(
            "warning: config.optimizer.rules freezes layers that were never trained; give"
            " config.model.pretrained or config.init_from, or rules without None",
            file=sys.stderr,
        )


def tell_seen(config: ConfigDict, plan: Plan, workdir: Path) -> None:
    """Say on stderr, as a run begins, that the one it starts from has trained on what is tested."""
    if not config.init_from or not is_first() or (workdir / RUN_FILE).is_file():
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
