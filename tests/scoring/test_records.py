"""Files of results: row by row, whole or partial, and going on after an interruption."""

import csv
import json
import os

import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.scoring import ImageScore
from glpi_jax.scoring.records import FIELDS, open_records, partial_file

SETTINGS = {"model": "0" * 64, "crops": 16}
RESULTS = [
    ImageScore("a.png", 3.25, 0.5, None, None, 0.125, 16),
    ImageScore('b,"quoted"\nline.png', 1 / 3, 0.25, "small", None, 0.0625, 16),
    ImageScore("carriage\rreturn\r.png", 1.5, 0.25, None, None, 0.125, 16),
    ImageScore(os.fsdecode(b"latin \xe9.png"), error="no such file"),
]


def written(path, form, results, **options):
    with open_records(path, form, SETTINGS, **{"resume": False, **options}) as records:
        for result in results:
            records.write(result)


def read(path, form):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        if form == "jsonl":
            return [json.loads(line) for line in file]
        rows = list(csv.DictReader(file))
    numbers = {"score": float, "crop_std": float, "standard_error": float, "crops": int}
    return [{k: numbers.get(k, str)(v) for k, v in row.items() if v} for row in rows]


def fields(result):
    return {field: getattr(result, field) for field in FIELDS if getattr(result, field) is not None}


def interrupted(path, form="csv", results=RESULTS[:1]):
    """A run that ended after these results, which are in the partial file at once."""

    def run():
        with open_records(path, form, SETTINGS, resume=False) as records:
            for result in results:
                records.write(result)
            assert len(read(partial_file(path), form)) == len(results)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_every_result_is_in_the_file_with_all_its_digits(tmp_path, form):
    path = tmp_path / "scores"
    written(path, form, RESULTS[:1])
    written(path, form, RESULTS)
    assert read(path, form) == [fields(result) for result in RESULTS]
    assert os.listdir(tmp_path) == ["scores"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_interrupted_run_goes_on(tmp_path, form):
    path = tmp_path / "scores"
    written(path, form, RESULTS[:1])
    interrupted(path, form, RESULTS[:2])
    assert read(path, form) == [fields(RESULTS[0])]
    with open_records(path, form, SETTINGS, resume=True) as records:
        assert records.names == {result.image for result in RESULTS[:2]}
        for result in RESULTS[2:]:
            records.write(result)
    assert read(path, form) == [fields(result) for result in RESULTS]
    assert os.listdir(tmp_path) == ["scores"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_result_written_by_halves_is_dropped(tmp_path, form):
    whole = tmp_path / "whole"
    written(whole, form, RESULTS)
    content = whole.read_bytes()
    for end in range(len(content) + 1):
        path = tmp_path / f"cut{end}"
        interrupted(path, form)
        partial_file(path).write_bytes(content[:end])
        with open_records(path, form, SETTINGS, resume=True) as records:
            known = records.names
            for result in RESULTS:
                if result.image not in known:
                    records.write(result)
        assert path.read_bytes() == content
    assert known == {result.image for result in RESULTS}
    assert records.errors == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crops": 25}, r"begun with crops 16, not 25; go on with the same"),
        ({"model": "1" * 64}, r"begun with model 000000000000…, not 111111111111…"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, words):
    path = tmp_path / "scores.csv"
    interrupted(path)
    before = partial_file(path).read_bytes()
    settings = {**SETTINGS, **change}
    with (
        pytest.raises(GlpiError, match=words),
        open_records(path, "csv", settings, resume=True),
    ):
        pass
    with (
        pytest.raises(GlpiError, match="begun with form csv, not jsonl"),
        open_records(path, "jsonl", SETTINGS, resume=True),
    ):
        pass
    assert partial_file(path).read_bytes() == before


def test_scores_of_an_interrupted_run_are_not_thrown_away(tmp_path):
    path = tmp_path / "scores.csv"
    interrupted(path)
    with (
        pytest.raises(GlpiError, match="go on with --resume, or delete the file"),
        open_records(path, "csv", SETTINGS, resume=False),
    ):
        pass


def test_a_partial_file_of_unknown_origin_is_refused(tmp_path):
    path = tmp_path / "scores.csv"
    interrupted(path)
    for content in ("{", "[]"):
        (tmp_path / "scores.csv.partial.json").write_text(content)
        with (
            pytest.raises(GlpiError, match="nobody knows what"),
            open_records(path, "csv", SETTINGS, resume=True),
        ):
            pass


def test_a_damaged_partial_file_is_refused(tmp_path):
    path = tmp_path / "scores.csv"
    interrupted(path)
    with open(partial_file(path), "a") as file:
        file.write("too,few\n")
    with (
        pytest.raises(GlpiError, match=r"scores\.csv\.partial: damaged; delete it"),
        open_records(path, "csv", SETTINGS, resume=True),
    ):
        pass


def test_what_is_no_result_is_damage(tmp_path):
    path = tmp_path / "scores.jsonl"
    for line in ("null", "[]", "3", '{"image": 5}', "{}"):
        interrupted(path, "jsonl")
        with open(partial_file(path), "a") as file:
            file.write(f"{line}\n")
        with (
            pytest.raises(GlpiError, match=r"scores\.jsonl\.partial: damaged; delete it"),
            open_records(path, "jsonl", SETTINGS, resume=True),
        ):
            pass
        partial_file(path).unlink()


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "scores.csv"
    with open_records(path, "csv", SETTINGS, resume=False) as records:
        records.write(RESULTS[0])
        for resume in (False, True):
            with (
                pytest.raises(GlpiError, match=r"scores\.csv: another run is writing it"),
                open_records(path, "csv", SETTINGS, resume=resume),
            ):
                pass
        records.write(RESULTS[1])
    assert read(path, "csv") == [fields(result) for result in RESULTS[:2]]


def test_a_run_that_scored_nothing_leaves_nothing(tmp_path):
    interrupted(tmp_path / "scores.csv", results=[])
    assert os.listdir(tmp_path) == []


class FullDisk:
    def write(self, text):
        raise OSError(28, "No space left on device")


def write_to_a_full_disk(path):
    with open_records(path, "jsonl", SETTINGS, resume=False) as records:
        records._file = FullDisk()
        records.write(RESULTS[0])


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(GlpiError, match=r"scores: cannot be written \(No space left on device\)"):
        write_to_a_full_disk(tmp_path / "scores")
