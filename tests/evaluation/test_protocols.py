"""Which images a protocol trains on, selects by and reports."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from glpi_jax.core.config import load_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Facts
from glpi_jax.data.splits import official_seed, official_split
from glpi_jax.evaluation.protocols import (
    Plan,
    make_plan,
    make_split,
    mean_srocc,
    open_databases,
    selection_names,
)

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def config(make_database: Any, tmp_path: Path) -> ConfigDict:
    """The base config on a miniature of six references with four images each."""
    tree = load_config(str(CONFIGS / "base.py"))
    tree.data.database = "csv"
    tree.data.root = str(make_database(tmp_path / "source"))
    return tree


@pytest.fixture
def cross(config: ConfigDict, make_database: Any, tmp_path: Path) -> ConfigDict:
    """A cross-dataset config: the second target has a DMOS whose lower values are better."""
    tree = load_config(str(CONFIGS / "cross.py:tid2013-live,csiq"))
    for section in (tree.data, *tree.targets.values()):
        section.database = "csv"
    tree.data.root = config.data.root
    tree.targets.live.root = str(make_database(tmp_path / "live"))
    folder = make_database(tmp_path / "csiq")
    tree.targets.csiq.root = str(folder)
    facts = {"name": "worse", "score_name": "DMOS", "higher_is_better": False}
    (folder / "database.json").write_text(json.dumps(facts))
    return tree


def plan_of(config: ConfigDict) -> Plan:
    source, targets = open_databases(config)
    return make_plan(config, source, targets, make_split(config, source))


def references(part: Any) -> set[str]:
    return {part.database.references[row] for row in part.rows}


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_names_of_the_selection_parts(config: ConfigDict, cross: ConfigDict, protocol: str) -> None:
    for tree in (config, cross):
        tree.protocol = protocol
        assert selection_names(tree) == tuple(part.name for part in plan_of(tree).selection)


def test_strict_selects_by_validation_and_reports_the_test_part(config: ConfigDict) -> None:
    plan = plan_of(config)
    assert [part.name for part in plan.selection] == ["validation"]
    assert [part.name for part in plan.reported] == ["test", "validation"]
    assert plan.criterion == "SROCC on the validation part"
    parts = [references(part) for part in (plan.train, *plan.reported)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 6


def test_official_selects_by_the_test_part_and_says_so(config: ConfigDict) -> None:
    strict = plan_of(config)
    config.protocol = "official"
    plan = plan_of(config)
    assert plan.selection == plan.reported
    assert [part.name for part in plan.reported] == ["test"]
    assert plan.criterion == "SROCC on the test part (official protocol)"
    assert plan.reported[0].rows == strict.reported[0].rows
    assert references(plan.train) == references(strict.train) | references(strict.selection[0])


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_rounds_have_the_official_seeds(config: ConfigDict, protocol: str) -> None:
    config.protocol = protocol
    source, _ = open_databases(config)
    for number in range(1, 11):
        config.split.round = number
        _, test = official_split(
            source.reference_order, train_fraction=0.8, seed=official_seed(number)
        )
        assert references(plan_of(config).reported[0]) == set(test)


def test_training_labels_are_scaled_and_test_labels_are_not(config: ConfigDict) -> None:
    config.data.label_scale, config.data.label_shift = 2.0, -50.0
    plan = plan_of(config)
    published = plan.reported[0].database.scores
    np.testing.assert_array_equal(plan.train.database.scores, 2 * published - 50)
    assert published.max() < 10


@pytest.mark.parametrize(("protocol", "sign"), [("strict", -1), ("official", 1)])
def test_dmos_is_turned_in_the_strict_protocol_alone(
    cross: ConfigDict, protocol: str, sign: int
) -> None:
    cross.protocol = protocol
    source, targets = open_databases(cross)
    turned = targets["csiq"]
    assert turned.higher_is_better is (protocol == "strict")
    np.testing.assert_array_equal(turned.scores, sign * targets["live"].scores)
    assert ("negated" in turned.label_note) is (protocol == "strict")
    assert source.higher_is_better is True


def test_cross_dataset_runs_train_on_all_and_test_on_all(cross: ConfigDict) -> None:
    cross.protocol = "official"
    plan = plan_of(cross)
    assert len(plan.train.rows) == 24
    assert [part.name for part in plan.selection] == ["test csiq", "test live"]
    assert [len(part.rows) for part in plan.reported] == [24, 24]
    assert plan.criterion == "mean SROCC on the test databases (official protocol)"
    assert plan.reported[1].section is cross.targets.live

    cross.protocol = "strict"
    plan = plan_of(cross)
    assert [part.name for part in plan.selection] == ["validation"]
    assert [part.name for part in plan.reported] == ["test csiq", "test live", "validation"]
    assert len(plan.train.rows) + len(plan.selection[0].rows) == 24
    assert not references(plan.train) & references(plan.selection[0])


@pytest.mark.parametrize("kind", ["published", "file", "lists"])
def test_a_cross_dataset_run_takes_no_split_that_it_would_not_keep(
    cross: ConfigDict, kind: str
) -> None:
    cross.split.kind, cross.split.name = kind, "official"
    with pytest.raises(GlpiError, match=rf"config\.split\.kind = '{kind}': a run with config\.tar"):
        plan_of(cross)


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_the_last_epoch_is_selected_by_nothing_else(config: ConfigDict, protocol: str) -> None:
    config.protocol, config.evaluation.select = protocol, "last"
    plan = plan_of(config)
    assert plan.criterion == "its place, the last epoch of the run"
    assert [part.name for part in plan.selection] == (
        ["validation"] if protocol == "strict" else ["test"]
    )


def test_lists_of_images_are_a_split(config: ConfigDict, tmp_path: Path) -> None:
    source, _ = open_databases(config)
    order = source.reference_order
    listed = {"train": set(order[:3]), "val": set(order[3:4]), "test": set(order[4:])}
    folder = tmp_path / "lists"
    folder.mkdir()
    for part, contents in listed.items():
        names = [
            name for name, r in zip(source.images, source.references, strict=True) if r in contents
        ]
        (folder / f"mini_{part}.txt").write_text("".join(f"{name}\t1.0\t0.1\n" for name in names))
    config.split.kind, config.split.name = "lists", str(folder)
    plan = plan_of(config)
    assert references(plan.train) == listed["train"]
    assert [references(part) for part in plan.reported] == [listed["test"], listed["val"]]
    (folder / "mini_val.txt").unlink()
    with pytest.raises(GlpiError, match="has no validation part, which the strict protocol"):
        plan_of(config)
    config.protocol = "official"
    assert references(plan_of(config).reported[0]) == listed["test"]


def test_official_splits_need_every_label(config: ConfigDict) -> None:
    source, _ = open_databases(config)
    published = Facts(images=25, references=6, score_range=(0, 5))
    partial = replace(source, facts=published, left_out=("labels.csv line 3: no such image",))
    assert make_split(config, partial) == make_split(config, source)
    config.protocol = "official"
    with pytest.raises(GlpiError, match="1 labels were left out, so the official index numbers"):
        make_split(config, partial)


def test_mean_over_targets_is_signed_and_undefined_if_one_is() -> None:
    assert mean_srocc([0.9, -0.7]) == pytest.approx(0.1)
    assert mean_srocc([0.9, None]) is None
    assert mean_srocc([]) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("protocol", "lenient", "config.protocol = 'lenient': choose one of strict, official"),
        (
            "evaluation.select",
            "first",
            "config.evaluation.select = 'first': choose one of best, last",
        ),
        ("data.root", "", r"config\.data\.root is empty: .* --config\.data\.root=FOLDER"),
        (
            "split.kind",
            "half",
            "config.split.kind = 'half': choose one of ratio, published, file, lists",
        ),
        ("split.kind", "published", r"config\.split\.name is empty"),
        ("split.kind", "file", r"config\.split\.name is empty"),
        ("split.kind", "lists", r"config\.split\.name is empty"),
    ],
)
def test_bad_settings(config: ConfigDict, key: str, value: str, message: str) -> None:
    section, _, name = key.rpartition(".")
    setattr(config[section] if section else config, name, value)
    with pytest.raises(GlpiError, match=message):
        plan_of(config)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("synthetic.py:koniq10k", "choose live, csiq, tid2013, kadid10k, livemd"),
        ("authentic.py:live", "choose clive, koniq10k, bid, spaq, flive, agiqa3k, agiqa3k_alig"),
        ("synthetic.py", "choose live"),
        ("cross.py:live", "the form is SOURCE-TARGET"),
        ("cross.py:live-csiq,csiq", "the form is SOURCE-TARGET"),
        ("cross.py:live-moon", "'moon': the databases are live"),
    ],
)
def test_unknown_forms_list_the_known(spec: str, message: str) -> None:
    with pytest.raises(GlpiError, match=message):
        load_config(str(CONFIGS / spec))


def test_configs_have_the_official_numbers() -> None:
    clive = load_config(str(CONFIGS / "authentic.py:clive"))
    assert (clive.data.label_scale, clive.data.label_shift) == (2, -50)
    assert (clive.train.epochs, clive.train.batch_size) == (300, 32)
    livemd = load_config(str(CONFIGS / "synthetic.py:livemd"))
    assert tuple(livemd.data.resize) == (512, 384)
    cross = load_config(
        str(CONFIGS / "cross.py:spaq-bid,flive"), ["--config.targets.bid.root=folder"]
    )
    assert cross.train.epochs == 200
    assert cross.targets.bid.root == "folder"
    assert [tuple(target.resize) for target in cross.targets.values()] == [(512, 384), (512, 512)]
