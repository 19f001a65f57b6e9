"""The two protocols: what trains, what selects the epoch, and what is reported.

`official` does what the authors' code does: the test images select the epoch, labels stay as
published, PLCC is plain, and metrics compare what the network gives with the labels, even where it
was trained on stretched ones. `strict` cuts a validation part from the training references for
that, touches the test part once, turns labels so that higher is better, and maps what the network
gives back to their units. Source of the official one: arXiv 2408.03885, section 4.1, and the
authors' implementation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.identical import keep_together
from glpi_jax.data.sources import Database, load_database
from glpi_jax.data.split_lists import read_list_split
from glpi_jax.data.splits import (
    Split,
    official_database_split,
    official_seed,
    published_split,
    read_split,
    strict_split,
    whole_split,
)
from glpi_jax.evaluation.metrics import oriented

PROTOCOLS = ("strict", "official")
SELECTIONS = ("best", "last")
SPLITS = ("ratio", "published", "file", "lists")
LAST_EPOCH = "its place, the last epoch of the run"


@dataclass(frozen=True)
class Part:
    """Rows of a database, and the section of the config that says how its images are read."""

    name: str
    database: Database
    rows: Sequence[int]
    section: ConfigDict
    where: str  # the section's own name, for messages


@dataclass(frozen=True)
class Plan:
    """What a run does with its databases.

    Attributes:
        train: what is trained on, with the labels that the loss sees.
        selection: the parts whose mean SROCC selects the epoch.
        criterion: what selects it, in words.
        reported: the parts in the results, in order.
    """

    train: Part
    selection: tuple[Part, ...]
    criterion: str
    reported: tuple[Part, ...]


def open_databases(config: ConfigDict) -> tuple[Database, dict[str, Database]]:
    """Load the source database, and the targets of a cross-dataset run by name.

    Labels are as the protocol has them: turned under `strict` where a lower score is better.

    Raises:
        GlpiError: unknown protocol, a root that is not given, or what `load_database` raises.
    """
    if config.protocol not in PROTOCOLS:
        raise GlpiError(
            f"config.protocol = '{config.protocol}': choose one of {', '.join(PROTOCOLS)}"
        )
    source = _open(config.protocol, config.data, "config.data")
    targets = {
        name: _open(config.protocol, section, f"config.targets.{name}")
        for name, section in config.targets.items()
    }
    return source, targets


def make_split(config: ConfigDict, database: Database) -> Split:
    """Split the source database as `config.split` and the protocol say.

    Round r of a "ratio" split has the official seed of r, under both protocols the same test part.
    A cross-dataset run has no test part in its source.

    Under `strict`, images whose files are identical are in one part: test if any of them is there,
    else validation. A "ratio" split moves the others there; a split that was given leaves them out.

    Raises:
        GlpiError: an unknown kind of split, a kind that the database does not have or that a
            cross-dataset run cannot have, fractions that leave a part empty, an official split
            of a database with labels left out, or an image that cannot be read.
    """
    split = _split(config, database)
    if not _strict(config):
        return split
    move = config.split.kind == "ratio"
    return keep_together(database, split, threads=config.data.threads, move=move)


def _split(config: ConfigDict, database: Database) -> Split:
    kind, seed = config.split.kind, official_seed(config.split.round)
    if kind not in SPLITS:
        raise GlpiError(f"config.split.kind = '{kind}': choose one of {', '.join(SPLITS)}")
    if config.targets and kind != "ratio":
        raise GlpiError(
            f"config.split.kind = '{kind}': a run with config.targets trains on all of its source,"
            " but for a validation part: leave config.split.kind at ratio"
        )
    if kind != "ratio" and not config.split.name:
        raise GlpiError(f"config.split.name is empty: config.split.kind = '{kind}' needs it")
    if config.targets:
        return whole_split(
            database,
            validation_fraction=config.split.validation_fraction if _strict(config) else None,
            seed=seed,
        )
    if kind == "ratio" and _strict(config):
        return strict_split(
            database,
            train_fraction=config.split.train_fraction,
            validation_fraction=config.split.validation_fraction,
            seed=seed,
        )
    if kind == "ratio" and database.left_out and database.facts:
        raise GlpiError(
            f"{database.name}: {len(database.left_out)} labels were left out, so the official index"
            " numbers mean other images: mend the copy, or take --config.protocol=strict"
        )
    if kind == "ratio":
        return official_database_split(
            database, train_fraction=config.split.train_fraction, seed=seed
        )
    if kind == "published":
        split = published_split(database, config.split.name)
    elif kind == "file":
        split = read_split(config.split.name, database)
    else:
        split = read_list_split(config.split.name, database)
    if _strict(config) and not split.validation:
        raise GlpiError(
            f"config.split.name = '{config.split.name}' has no validation part, which the strict"
            " protocol needs to select the epoch: take --config.protocol=official"
        )
    return split


def make_plan(
    config: ConfigDict, source: Database, targets: Mapping[str, Database], split: Split
) -> Plan:
    """Lay out a run.

    Args:
        config: the whole tree.
        source, targets: from `open_databases`.
        split: of the source.

    Raises:
        GlpiError: an unknown way to select the epoch.
    """
    select = config.evaluation.select
    if select not in SELECTIONS:
        raise GlpiError(
            f"config.evaluation.select = '{select}': choose one of {', '.join(SELECTIONS)}"
        )
    labelled = replace(
        source, scores=config.data.label_scale * source.scores + config.data.label_shift
    )
    train = Part("train", labelled, split.train, config.data, "config.data")
    if targets:
        test = tuple(
            Part(
                f"test {name}",
                database,
                tuple(range(len(database))),
                config.targets[name],
                f"config.targets.{name}",
            )
            for name, database in targets.items()
        )
    else:
        test = (Part("test", source, split.test, config.data, "config.data"),)
    if not _strict(config):
        criterion = "mean SROCC on the test databases" if targets else "SROCC on the test part"
        criterion = LAST_EPOCH if select == "last" else f"{criterion} (official protocol)"
        return Plan(train, test, criterion, test)
    criterion = LAST_EPOCH if select == "last" else "SROCC on the validation part"
    validation = Part("validation", source, split.validation, config.data, "config.data")
    return Plan(train, (validation,), criterion, (*test, validation))


def selection_names(config: ConfigDict) -> tuple[str, ...]:
    """The names of a plan's selection parts, for who does not open the databases."""
    if _strict(config):
        return ("validation",)
    return tuple(f"test {name}" for name in config.targets) or ("test",)


def mean_srocc(values: Sequence[float | None]) -> float | None:
    """The mean over parts, signed as the official code takes it; None if one is undefined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def compares_raw(config: ConfigDict) -> bool:
    """Return whether metrics compare raw predictions with the labels, as the authors' code does.

    Under strict the predictions are mapped back to the units of the labels first. Where the
    training labels are not stretched, both are the same.
    """
    return not _strict(config)


def metrics_note(config: ConfigDict, score_name: str) -> str | None:
    """Return the scale of the predictions that the metrics compare, if it is not the labels'.

    Args:
        config: the whole tree.
        score_name: name of the labels, such as "MOS".
    """
    scale, shift = config.data.label_scale, config.data.label_shift
    if not compares_raw(config) or (scale, shift) == (1, 0):
        return None
    stretched = score_name if scale == 1 else f"{scale:g}·{score_name}"
    if shift:
        stretched += f" {'+' if shift > 0 else '−'} {abs(shift):g}"
    return f"RMSE of predictions on the scale {stretched}, as the authors' code compares them"


def _strict(config: ConfigDict) -> bool:
    return bool(config.protocol == "strict")


def _open(protocol: str, section: ConfigDict, where: str) -> Database:
    if not section.root:
        raise GlpiError(f"{where}.root is empty: pass the database's folder, --{where}.root=FOLDER")
    database = load_database(
        section.database, section.root, section.labels or None, skip_bad=section.skip_bad
    )
    if protocol == "strict" and not database.higher_is_better:
        return turned(database)
    return database


def turned(database: Database) -> Database:
    """The same database with its scores negated and so turned round: higher is better."""
    return replace(
        database,
        scores=oriented(database.scores, database.higher_is_better),
        higher_is_better=True,
        label_note=f"{database.label_note}; negated, so that higher is better",
    )
