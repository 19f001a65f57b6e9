"""Identical images in a run, from the database to the files of the workdir."""

import hashlib
import json
import shutil
from itertools import chain, combinations
from pathlib import Path

from miniatures import build_miniature
from short_runs import TINY

from glpi_jax.cli.main import main
from glpi_jax.core.config import shipped_config
from glpi_jax.data.sources import load_database


def parts_of(workdir: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Names of each part, and the fingerprints."""
    split = json.loads((workdir / "split.json").read_text())
    return {part: split[part] for part in ("train", "validation", "test")}, split["fingerprints"]


def test_strict_run_on_agiqa3k_with_a_pair_reports_it_and_is_disjoint(
    shared_compilations, tmp_path, capsys
):
    root = build_miniature("agiqa3k", tmp_path / "agiqa3k", references=15, variant="root")
    images = load_database("agiqa3k", root).images
    shutil.copy(root / images[0], root / images[1])  # apart in this round without the rule
    workdir = tmp_path / "run"
    command = [
        *("train", "--config", f"{shipped_config('authentic')}:agiqa3k"),
        *("--workdir", str(workdir), f"--config.data.root={root}", *TINY),
    ]
    assert main([*command, "--config.split.round=4"]) == 0
    parts, found = parts_of(workdir)
    (part,) = (part for part, names in parts.items() if images[0] in names)
    line = f"agiqa3k: identical images stay in one part: {images[0]} = {images[1]} ({part})\n"
    assert capsys.readouterr().err.count(line) == 1

    assert sorted(chain(*parts.values())) == sorted(images) == sorted(found)
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in images}
    for one, other in combinations(parts.values(), 2):
        assert not set(one) & set(other)
        assert not {digests[name] for name in one} & {digests[name] for name in other}
        assert not {found[name] for name in one} & {found[name] for name in other}
    results = json.loads((workdir / "results.json").read_text())
    for name in ("validation", "test"):
        reported = [row["image"] for row in results["parts"][name]["predictions"]]
        assert reported == parts[name]
    assert results["split"]["references"]["train"] == sorted(parts["train"])
    assert main([*command, "--config.split.round=4"]) == 0
    assert "identical" not in capsys.readouterr().err
