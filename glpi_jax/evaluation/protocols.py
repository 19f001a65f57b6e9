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
    _check_choice("config.protocol", config.protocol, PROTOCOLS)
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
    kind, name = config.split.kind, config.split.name
    _check_choice("config.split.kind", kind, SPLITS)
    if kind == "ratio":
        return _ratio_split(config, database)
    if config.targets:
        raise GlpiError(
            f"config.split.kind = '{kind}': a run with config.targets trains on all of its source,"
            " but for a validation part: leave config.split.kind at ratio"
        )
    if not name:
        raise GlpiError(f"config.split.name is empty: config.split.kind = '{kind}' needs it")
    if kind == "published":
        split = published_split(database, name)
    else:
        split = (read_split if kind == "file" else read_list_split)(name, database)
    if _strict(config) and not split.validation:
        raise GlpiError(
            f"config.split.name = '{name}' has no validation part, which the strict protocol needs"
            " to select the epoch: take --config.protocol=official"
        )
    return split


def _ratio_split(config: ConfigDict, database: Database) -> Split:
    train, validation = config.split.train_fraction, config.split.validation_fraction
    seed, strict = official_seed(config.split.round), _strict(config)
    if config.targets:
        held_out = validation if strict else None
        return whole_split(database, validation_fraction=held_out, seed=seed)
    if strict:
        return strict_split(
            database, train_fraction=train, validation_fraction=validation, seed=seed
        )
    if database.left_out and database.facts:
        raise GlpiError(
            f"{database.name}: {len(database.left_out)} labels were left out, so the official index"
            " numbers mean other images: mend the copy, or take --config.protocol=strict"
        )
    return official_database_split(database, train_fraction=train, seed=seed)


def make_plan(
    config: ConfigDict, source: Database, targets: Mapping[str, Database], split: Split
) -> Plan:
    """Lay out a run from `open_databases` and the split of the source.

    Raises:
        GlpiError: an unknown way to select the epoch.
    """
    _check_choice("config.evaluation.select", config.evaluation.select, SELECTIONS)
    data = config.data
    labelled = replace(source, scores=data.label_scale * source.scores + data.label_shift)
    train = Part("train", labelled, split.train, data, "config.data")
    of_targets = config.targets
    test = tuple(
        Part(f"test {name}", each, range(len(each)), of_targets[name], f"config.targets.{name}")
        for name, each in targets.items()
    ) or (Part("test", source, split.test, data, "config.data"),)
    validation = Part("validation", source, split.validation, data, "config.data")
    if _strict(config):
        plan = Plan(train, (validation,), "SROCC on the validation part", (*test, validation))
    else:
        criterion = "mean SROCC on the test databases" if targets else "SROCC on the test part"
        plan = Plan(train, test, f"{criterion} (official protocol)", test)
    return replace(plan, criterion=LAST_EPOCH) if config.evaluation.select == "last" else plan


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

    `score_name` is the name of the labels, such as "MOS".
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


def _check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise GlpiError(f"{key} = '{value}': choose one of {', '.join(choices)}")


def _open(protocol: str, section: ConfigDict, where: str) -> Database:
    if not section.root:
        raise GlpiError(f"{where}.root is empty: pass the database's folder, --{where}.root=FOLDER")
    database = load_database(
        section.database, section.root, section.labels or None, skip_bad=section.skip_bad
    )
    if protocol == "strict" and not database.higher_is_better:
        return replace(
            database,
            scores=oriented(database.scores, database.higher_is_better),
            higher_is_better=True,
            label_note=f"{database.label_note}; negated, so that higher is better",
        )
    return database
