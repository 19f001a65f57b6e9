"""Which workdirs may stand in one table, what is best in it, and what must be said below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from glpi_jax.results.workdirs import Workdir

HEADINGS = {
    "srocc": "SROCC",
    "plcc": "PLCC",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "plcc_logistic4": "PLCC, fitted",
    "rmse_logistic4": "RMSE, fitted",
}
RAW = ("srocc", "plcc", "krcc", "rmse")
# The official code reports no fit.
COLUMNS = {"official": RAW, "strict": tuple(HEADINGS)}
Spread = Mapping[str, float | int | None]


@dataclass(frozen=True)
class MetricCell:
    """A metric over the rounds of a workdir; `best` if no other row of its group is better."""

    spread: Spread
    best: bool = False


@dataclass(frozen=True)
class WorkdirGroup:
    """Workdirs that one table may hold, in the order given.

    They are of one protocol, "strict" or "official", and all cross-dataset runs that were trained
    on one database, or none is one (`trained_on` is None).
    """

    protocol: str
    trained_on: str | None
    workdirs: tuple[Workdir, ...]

    @cached_property
    def databases(self) -> tuple[str, ...]:
        """The test databases, in the order in which they first appear."""
        return tuple(dict.fromkeys(name for each in self.workdirs for name in each.tests))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns below each database, keys of `HEADINGS`."""
        return COLUMNS[self.protocol]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The columns of the table, (database, metric)."""
        return [(database, metric) for database in self.databases for metric in self.metrics]

    @cached_property
    def cells(self) -> Mapping[tuple[str, str, str], MetricCell]:
        """By (workdir's name, database, metric); none where the workdir lacks the database."""
        cells = {}
        for database, metric in self.columns:
            spreads = {
                each.name: each.spread(each.tests[database], metric)
                for each in self.workdirs
                if database in each.tests
            }
            ranks = {name: self._rank(metric, each["median"]) for name, each in spreads.items()}
            known = [rank for rank in ranks.values() if rank is not None]
            for name, spread in spreads.items():
                best = len(known) > 1 and ranks[name] == max(known)
                cells[name, database, metric] = MetricCell(spread, best)
        return cells

    def _rank(self, metric: str, median: float | None) -> float | None:
        """Higher is better; rounded as it is shown."""
        if median is None:
            return None
        if metric.startswith("rmse"):
            return -round(median, 4)
        return round(abs(median) if self.protocol == "official" else median, 4)

    @property
    def title(self) -> str:
        """What the workdirs have in common, in a few words."""
        where = f"trained on {self.trained_on}" if self.trained_on else "within a database"
        return f"{self.protocol.capitalize()} protocol, {where}"

    @property
    def setting(self) -> str:
        """Where the training images come from, as a sentence without its full stop."""
        if self.trained_on:
            return f"Trained on {self.trained_on}, tested on other databases"
        return "Trained and tested within a database"


def protocol_text(protocol: str, *, crossed: bool) -> tuple[str, str]:
    """Say what a protocol means for the numbers: its name, and a sentence without it.

    `crossed`: whether the run was tested on other databases than it was trained on.
    """
    test = "test databases" if crossed else "test part"
    if protocol == "strict":
        were = "were" if crossed else "was"
        return "Strict protocol:", (
            f"the epoch was selected without the {test}, which {were} used once, after that. Labels"
            " are turned so that higher is better."
        )
    itself = "themselves" if crossed else "itself"
    return "Official protocol:", (
        f"the {test} {itself} selected the epoch, as in the authors' code, so that these numbers"
        " are optimistic. Labels are as published."
    )


def group_workdirs(workdirs: Sequence[Workdir]) -> list[WorkdirGroup]:
    """Put workdirs together that may be compared, and find the best of every column.

    A run that trained elsewhere is no rival of one that trained on the test database, nor is one
    whose epoch the test part selected a rival of one that was held out: they get groups of their
    own. The best correlation is the highest; under the official protocol the highest absolute one,
    as labels that fall with quality keep their sign there. The lowest RMSE is the best. Equal to
    four digits is equally good; a single value is not called the best.
    """
    groups: dict[tuple[str, str | None], list[Workdir]] = {}
    for workdir in workdirs:
        key = (workdir.first["protocol"], workdir.trained_on)
        groups.setdefault(key, []).append(workdir)
    return [WorkdirGroup(*key, tuple(members)) for key, members in groups.items()]


def table_notes(group: WorkdirGroup) -> list[str]:
    """Sentences that belong under a group's table: what made it, what differs between its rows."""
    notes = [" ".join(protocol_text(group.protocol, crossed=group.trained_on is not None))]
    rounds = {len(each.rounds) for each in group.workdirs}
    if rounds == {1}:
        notes.append("Values of a single round.")
    elif len(rounds) == 1:
        notes.append(f"Median ± standard deviation of {rounds.pop()} rounds.")
    else:
        notes.append(
            "Median ± standard deviation over the rounds, whose numbers differ; a single round has"
            " no deviation."
        )
    if group.protocol == "strict":
        notes.append(
            "PLCC and RMSE are those of the raw predictions and, fitted, those after a logistic"
            " function of four parameters; SROCC and KRCC do not depend on it."
        )
    else:
        notes.append("PLCC and RMSE are those of the raw predictions, without a logistic fit.")
    texts = {each.name: each.first.get("metrics_note") for each in group.workdirs}
    for text in dict.fromkeys(text for text in texts.values() if text is not None):
        names = [name for name, own in texts.items() if own == text]
        notes.append(f"{', '.join(names)}: {text}.")
    if len(group.workdirs) > 1:
        how = ", correlations by absolute value" if group.protocol == "official" else ""
        notes.append(f"The best of a column is bold{how}.")
    notes += _differences(group)
    return notes


def _differences(group: WorkdirGroup) -> list[str]:
    """Warn where rows of a database were not tested on the same images or crops."""
    warnings = []
    for database in group.databases:
        parts = {
            each.name: [run.results["parts"][each.tests[database]] for run in each.rounds]
            for each in group.workdirs
            if database in each.tests
        }
        # Round by round, as far as all have rounds.
        for rounds in zip(*parts.values(), strict=False):
            images = [frozenset(e["image"] for e in part["predictions"]) for part in rounds]
            if len(set(images)) > 1:
                warnings.append(f"The rows of {database} were tested on different images.")
                break
        crops = {name: rounds[0]["crops"] for name, rounds in parts.items()}
        if len(set(crops.values())) > 1:
            listed = ", ".join(f"{name}: {count}" for name, count in crops.items())
            warnings.append(f"The rows of {database} differ in the crops an image ({listed}).")
    return warnings
