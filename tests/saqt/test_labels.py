"""Label transfer: the official numbers, names and tables, and what a wrong table ends in."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.saqt_labels import list_label_tables
from glpi_jax.saqt import labels as labels_module
from glpi_jax.saqt.labels import (
    Match,
    photograph_prefix,
    read_matches,
    read_reference_scores,
    transfer,
    write_label_tables,
)

GOLDENS = Path(__file__).parents[1] / "goldens/saqt"
MATCHES, DMOS = GOLDENS / "similarity_head1200.csv", GOLDENS / "dmos.csv"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def scores() -> dict[str, np.ndarray]:
    return read_reference_scores(DMOS)


@pytest.mark.parametrize("columns", ["old", "new"])
def test_golden_tables(tmp_path: Path, columns: str) -> None:
    """Made by the official rules from the official similarity table."""
    golden = json.loads((GOLDENS / "labels.json").read_text())
    command = ["saqt", "labels", str(MATCHES), str(DMOS), str(tmp_path / "out")]
    assert main([*command, "--columns", columns]) == 0
    name, label = {"old": ("dist_img", "label"), "new": ("distorted_image", "quality_score")}[
        columns
    ]
    labels: dict[str, float] = {}
    for number, facts in golden["batches"].items():
        rows = read(tmp_path / f"out/labels_{int(number):03d}.csv")
        assert len(rows) == facts["rows"]
        names = [row[name] for row in rows]
        assert hashlib.sha256("\n".join(names).encode()).hexdigest() == facts["names_sha256"]
        values = [float(row[label]) for row in rows]
        assert sum(values) == pytest.approx(facts["label_sum"], rel=1e-12)
        labels |= dict(zip(names, values, strict=True))
    assert [labels[image] for image, _ in golden["samples"]] == [
        value for _, value in golden["samples"]
    ]


def test_new_columns_say_where_a_label_comes_from(
    tmp_path: Path, scores: dict[str, np.ndarray]
) -> None:
    matches = [Match("pier.at.dawn.jpg", ("I07.png",), (0.8,))]
    labels = transfer(matches, scores, scale="raw", references=1)
    (path,) = write_label_tables(matches, labels, tmp_path, columns="new")
    row = read(path)[2 * 5 + 3]
    assert row == {
        "distorted_image": "001/pier.at.dawn_03_04.bmp",
        "quality_score": repr(float(scores["I07.png"][2, 3])),
        "source_image": "pier.at.dawn.jpg",
        "matched_reference": "I07.png",
        "distortion_type": "3",
        "distortion_level": "4",
    }


def test_folders_count_thousands_of_sources() -> None:
    assert photograph_prefix("a.png", 999) == "001/a"
    assert photograph_prefix("a.png", 1000) == "002/a"


def test_several_references_are_weighted_by_similarity(scores: dict[str, np.ndarray]) -> None:
    match = Match("a.png", ("I01.png", "I02.png", "I03.png"), (0.9, 0.3, 0.1))
    labels = transfer([match], scores, scale="raw", references=2)
    expected = 0.75 * scores["I01.png"] + 0.25 * scores["I02.png"]
    np.testing.assert_allclose(labels[0], expected, rtol=1e-14)
    assert labels.shape == (1, 25, 5)


def test_scaled_labels_span_zero_to_nine(scores: dict[str, np.ndarray]) -> None:
    matches = [Match(f"{name}.jpg", (name,), (1.0,)) for name in scores]
    labels = transfer(matches, scores, scale="0-9", references=1)
    assert (labels.min(), labels.max()) == (0, 9)
    raw = transfer(matches, scores, scale="raw", references=1)
    assert np.corrcoef(labels.ravel(), raw.ravel())[0, 1] == pytest.approx(1)


def test_ranked_tables_with_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "similarity.csv"
    header = "source_image,source_path,target_reference,target_reference_path,semantic_distance"
    path.write_text(
        f"{header},cosine_similarity,rank\n"
        "a.jpg,p/a.jpg,I02.png,k/I02.png,0.2,0.8,1\n"
        "b.jpg,p/b.jpg,I01.png,k/I01.png,0.4,0.6,1\n"
        "a.jpg,p/a.jpg,I05.png,k/I05.png,0.3,0.7,2\n"
    )
    assert read_matches(path) == [
        Match("a.jpg", ("I02.png", "I05.png"), (0.8, 0.7)),
        Match("b.jpg", ("I01.png",), (0.6,)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "not a similarity table: its columns must hold kadis"),
        ("kadis,kadid-10k,sim_value\n", "no matches under the header"),
        ("kadis,kadid-10k,sim_value\na.png,I01.png\n", "line 2: not as many values"),
        ("kadis,kadid-10k,sim_value\na.png,I01.png,high\n", "line 2: similarity 'high'"),
        ("kadis,kadid-10k,sim_value\na.png,I01.png,nan\n", "line 2: similarity 'nan'"),
        (
            "kadis,kadid-10k,sim_value\na.png,I01.png,.5\na.png,I02.png,.5\n",
            "line 3: 'a.png' is listed twice",
        ),
    ],
)
def test_bad_similarity_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "similarity.csv"
    path.write_text(text)
    with pytest.raises(GlpiError, match=message):
        read_matches(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("I03_07_02.png,I03.png,1.67,0.830\n", "", "I03.png lacks 1 of 125 .* for type 7 level 2"),
        ("I03_07_02.png", "I03_07_01.png", "a second score of I03.png for type 7 level 1; delete"),
        ("I03_07_02.png", "I03_26_02.png", "'I03_26_02.png' with .* is no KADID-10k label"),
        ("I03_07_02.png", "I03_07_02_1.png", "'I03_07_02_1.png' with .* is no KADID-10k label"),
        ("I03_07_02.png", "I02_07_02.png", "line .*: 'I02_07_02.png' does not belong to 'I03.png'"),
        ("dist_img,", "image,", "column 'dist_img' is missing"),
    ],
)
def test_bad_dmos_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "dmos.csv"
    text = DMOS.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(GlpiError, match=message):
        read_reference_scores(path)


def test_bad_transfers(scores: dict[str, np.ndarray], tmp_path: Path) -> None:
    def run(match: Match, references: int = 1) -> None:
        transfer([match], scores, scale="0-9", references=references)

    with pytest.raises(GlpiError, match=r"a\.png: no scores of its reference 'I99\.png'"):
        run(Match("a.png", ("I99.png",), (0.5,)))
    with pytest.raises(GlpiError, match=r"a\.png: 1 matched references, 2 asked"):
        run(Match("a.png", ("I01.png",), (0.5,)), 2)
    with pytest.raises(GlpiError, match="not positive"):
        run(Match("a.png", ("I01.png", "I02.png"), (0.5, -0.1)), 2)
    with pytest.raises(GlpiError, match="0 references"):
        run(Match("a.png", ("I01.png",), (0.5,)), 0)
    labels = np.zeros((1, 25, 5))
    with pytest.raises(GlpiError, match="comma"):
        write_label_tables([Match("a,b.png", ("I01.png",), (1,))], labels, tmp_path, columns="old")
    assert list(tmp_path.iterdir()) == []


def write_table(folder: Path, sources: int, score: float) -> list[Path]:
    matches = [Match(f"{source}.png", ("I01.png",), (0.5,)) for source in range(sources)]
    return write_label_tables(matches, np.full((sources, 25, 5), score), folder, columns="old")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in list_label_tables(folder)}


@pytest.fixture
def two_sources_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "SOURCES_PER_FILE", 2)


@pytest.mark.usefixtures("two_sources_a_file")
@pytest.mark.parametrize(("before", "now"), [(5, 3), (5, 1), (1, 5), (3, 3)])
def test_a_folder_holds_the_last_table_alone(tmp_path: Path, before: int, now: int) -> None:
    write_table(tmp_path / "out", before, 1)
    (tmp_path / "out/notes.txt").touch()
    written = write_table(tmp_path / "out", now, 2)
    assert written == list_label_tables(tmp_path / "out")
    write_table(tmp_path / "expected", now, 2)
    assert content(tmp_path / "out") == content(tmp_path / "expected")
    names = [path.name for path in written]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "notes.txt"]


class Killed(BaseException):
    """Ends a call as a kill would."""


@pytest.mark.usefixtures("two_sources_a_file")
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_leaves_no_mixture_that_could_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """A kill just before or after each change of a file name, one more each time."""
    write_table(tmp_path / "old", 7, 1)
    write_table(tmp_path / "new", 5, 2)
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    found = []
    for kills in range(100):
        out = shutil.copytree(tmp_path / "old", tmp_path / str(kills))
        left = kills

        def dying(change: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: Any, **options: Any) -> None:
                nonlocal left
                left -= 1
                if left == -1 and before:
                    raise Killed
                change(*arguments, **options)
                if left == -1:
                    raise Killed

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying(os.replace))
            patch.setattr(os, "unlink", dying(os.unlink))
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            try:
                write_table(out, 5, 2)
            except Killed:
                killed = True
            else:
                killed = False
        if (out / "labels_001.csv").exists():
            found.append({str(old): "old", str(new): "new"}[str(content(out))])
        else:
            with pytest.raises(GlpiError, match=r"labels_001\.csv is missing beside labels_00"):
                list_label_tables(out)
            found.append("refused")
        write_table(out, 5, 2)
        assert content(out) == new
        assert len(list(out.iterdir())) == 3
        if not killed:
            break
    # Three tables under hidden names; then two old ones away, three new ones in their place.
    old_ones = 4 if before else 3
    assert found == ["old"] * old_ones + ["refused"] * 4 + ["new"] * (5 - old_ones)
    assert kills == 3 + 2 + 3


@pytest.mark.usefixtures("two_sources_a_file")
def test_what_fails_leaves_the_earlier_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, 3, 1)
    before = content(tmp_path)
    write_text = labels_module.write_text

    def full_disk(path: Path, text: str) -> None:
        if path.name == "labels_002.csv":
            raise GlpiError(f"{path}: cannot be written (No space left on device)")
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(labels_module, "write_text", full_disk)
        with pytest.raises(GlpiError, match="No space left"):
            write_table(tmp_path, 3, 2)
    assert content(tmp_path) == before
    (tmp_path / "similarity.csv").touch()
    with pytest.raises(GlpiError, match=r"holds another table \(similarity\.csv\), which would be"):
        write_table(tmp_path, 3, 2)
    (tmp_path / "similarity.csv").unlink()
    assert len(list(tmp_path.iterdir())) == 2
    assert content(tmp_path) == before
    with pytest.raises(GlpiError, match=r"labels_001\.csv: the tables cannot be written \(File"):
        write_table(tmp_path / "labels_001.csv", 3, 2)


def test_missing_tables_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["saqt", "labels", str(tmp_path / "no.csv"), str(DMOS), str(tmp_path / "out")]
    assert main(command) == 2
    assert "no.csv: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
