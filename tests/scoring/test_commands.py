"""`glpi score`, `rank`, `compare` and `map` on the command line."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from glpi_jax.cli import scoring_options
from glpi_jax.cli.main import main
from glpi_jax.scoring import ImageScore, Scorer, scorer
from glpi_jax.scoring.contact_sheet import contact_sheet
from glpi_jax.scoring.ranking import verdict


@pytest.fixture
def photos(save):
    """Three photographs in a folder."""
    return [save(f"photos/{name}.png", *size) for name, size in
            (("a", (80, 90)), ("b", (100, 70)), ("c", (64, 200)))]  # fmt: skip


def run(capsys, *arguments, code=0):
    assert main([*map(str, arguments)]) == code
    output = capsys.readouterr()
    return output.out, output.err


def scores_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_on_stdout_and_in_a_file(photos, capsys, tmp_path):
    array = json.loads(run(capsys, "score", "--json", *photos)[0])
    assert scores_of(run(capsys, "score", "--jsonl", "-", *photos)[0]) == array
    table, _ = run(capsys, "score", "--jsonl", tmp_path / "s.jsonl", photos[0].parent)
    assert scores_of((tmp_path / "s.jsonl").read_text()) == array
    assert [line.split()[-1] for line in table.splitlines()] == [str(path) for path in photos]
    assert array[0]["crops"] == 16
    assert 0 < array[0]["standard_error"] < array[0]["crop_std"]


def test_the_crops_of_the_paper(photos, capsys):
    def score(*options):
        return json.loads(run(capsys, "score", "--json", *options, photos[2])[0])[0]

    paper = score("--paper-crops")
    assert paper["crops"] == 25
    assert score("--crops", 25, "--placement", "random", "--seed", 0)["score"] == paper["score"]
    assert score("--crops", 25, "--placement", "random", "--seed", 1)["score"] != paper["score"]
    assert score("--crops", 25)["score"] != paper["score"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--paper-crops", "--crops", "9"], "--paper-crops: cannot be combined with --crops"),
        (["--seed", "3"], "--seed: is for --placement random"),
        (["--crops", "0"], "--crops 0: must be 1 to 1024"),
        (["--resume"], "--resume: needs the --csv FILE or --jsonl FILE of the earlier run"),
        (["--jsonl", "photo.JPG"], "--jsonl photo.JPG: this would replace an image"),
        (["--csv", "."], "--csv .: this is a folder"),
    ],
)
def test_options_that_make_no_sense_are_one_line(photos, capsys, options, words):
    out, err = run(capsys, "score", *options, photos[0], code=2)
    assert out == ""
    assert err.startswith(f"glpi: error: {words}")
    assert len(err.splitlines()) == 1


def test_paths_from_stdin(photos, capsys, monkeypatch):
    expected = json.loads(run(capsys, "score", "--json", *photos)[0])
    for separator, options in (("\n", []), ("\0", ["--null"])):
        content = separator.join(map(str, photos)).encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert json.loads(run(capsys, "score", "-", "--json", *options)[0]) == expected


def test_a_quoted_pattern(photos, capsys):
    out, _ = run(capsys, "score", "--json", f"{photos[0].parent}/[ab].png")
    assert [result["image"] for result in json.loads(out)] == [str(path) for path in photos[:2]]


class Interrupting:
    """Ends a run after some results, as Ctrl-C does."""

    def __init__(self, monkeypatch, after):
        self.seen = []
        original = Scorer.score_iter

        def score_iter(scorer, images):
            for number, result in enumerate(original(scorer, self.watched(images))):
                if number == after:
                    raise KeyboardInterrupt
                yield result

        monkeypatch.setattr(Scorer, "score_iter", score_iter)

    def watched(self, images):
        for image in images:
            self.seen.append(image)
            yield image


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_interrupted_run_goes_on_where_it_stopped(photos, capsys, tmp_path, monkeypatch, form):
    bad = tmp_path / "photos/aa.png"
    bad.write_bytes(b"no image")
    folder = photos[0].parent
    whole, file = tmp_path / f"whole.{form}", tmp_path / f"scores.{form}"
    run(capsys, "score", f"--{form}", whole, folder, code=2)
    with monkeypatch.context() as patch:
        Interrupting(patch, after=2)
        _, err = run(capsys, "score", f"--{form}", file, folder, code=130)
    assert f"{file}.partial holds the scores so far; --resume starts from there" in err
    assert not file.exists()
    # Without the option the work is not thrown away; with other crops it is not mixed.
    _, err = run(capsys, "score", f"--{form}", file, folder, code=2)
    assert "go on with --resume, or delete the file" in err
    _, err = run(capsys, "score", f"--{form}", file, folder, "--resume", "--crops", 4, code=2)
    assert "begun with crops 16, not 4" in err
    watch = Interrupting(monkeypatch, after=99)
    table, err = run(capsys, "score", f"--{form}", file, folder, "--resume", code=2)
    assert watch.seen == [str(path) for path in photos[1:]]
    assert "1 of the 2 images that were scored before had errors" in err
    assert len(table.splitlines()) == 2
    assert sorted(os.listdir(tmp_path)) == sorted(["photos", whole.name, file.name])
    # To float precision: an image's place in its batch may change the last bits.
    assert [line[:len(str(bad))] for line in file.read_text().splitlines()] == [
        line[:len(str(bad))] for line in whole.read_text().splitlines()
    ]  # fmt: skip
    _, err = run(capsys, "score", f"--{form}", file, folder, "--resume", code=2)
    assert err.splitlines() == [
        f"glpi: {file} is complete; without --resume it would be made anew",
        "glpi: 1 of its 4 images had errors",
    ]


def test_progress_is_shown_on_a_terminal_alone(photos, capsys):
    _, err = run(capsys, "score", "--json", *photos)
    assert len(err.splitlines()) == 1  # the demonstration's


# Ranks


@pytest.fixture
def sharp_and_blurred(tmp_path):
    folder = tmp_path / "cats"
    folder.mkdir()
    photograph = Image.fromarray(data.chelsea())
    for radius in (3, 0, 1):
        photograph.filter(ImageFilter.GaussianBlur(radius)).save(folder / f"blur{radius}.png")
    return folder


def test_rank_orders_and_draws(sharp_and_blurred, capsys, tmp_path):
    sheet = tmp_path / "sheet.png"
    (sharp_and_blurred / "bad.png").write_bytes(b"")
    out, err = run(capsys, "rank", sharp_and_blurred, "--out", sheet, "--top", 1, code=2)
    lines = [line.split() for line in out.splitlines()]
    names = ["blur0.png", "blur1.png", "blur3.png"]
    assert [line[-1] for line in lines] == [str(sharp_and_blurred / name) for name in names]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    assert "bad.png: the file is empty" in err
    with Image.open(sheet) as picture:
        assert picture.size == (260, 2 * (26 + 240 + 34 + 10) + 20)
        pixels = np.asarray(picture.convert("L")).astype(float)
    # The best above, the worst below: sharp fur has more detail than a blur.
    detail = np.abs(np.diff(pixels[:, 20:240], axis=1)).mean(axis=1)
    assert detail[150:270].mean() > 2 * detail[460:580].mean()


def test_lower_scores_are_first_where_they_are_better(sharp_and_blurred, capsys, monkeypatch):
    best_first, _ = run(capsys, "rank", sharp_and_blurred)
    init = Scorer.__init__

    def reversed_scale(self, *arguments):
        init(self, *arguments)
        self.higher_is_better = False

    monkeypatch.setattr(Scorer, "__init__", reversed_scale)
    worst_first, _ = run(capsys, "rank", sharp_and_blurred)
    files = [[line.split()[-1] for line in text.splitlines()] for text in (best_first, worst_first)]
    assert files[0] == files[1][::-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "sheet.jpg"], "--out sheet.jpg: must end in .png"),
        (["--out", "no/sheet.png"], "--out no/sheet.png: there is no folder no"),
        (["--top", "0"], "--top 0: must be at least 1"),
        (["--cell", "9"], "--cell 9: must be at least 64 pixels"),
    ],
)
def test_rank_checks_before_it_works(options, words, capsys, monkeypatch):
    monkeypatch.setattr(scorer, "read_model", None)
    assert run(capsys, "rank", "photos", *options, code=2) == ("", f"glpi: error: {words}\n")


def test_names_of_any_kind_in_a_sheet(save):
    names = ("new\nline.png", os.fsdecode(b"latin \xe9.png"), "long" * 40 + ".png", "日本.png")
    paths = [save(name, 70, 90) for name in names]
    results = [ImageScore(str(path), 1.0, 0.5) for path in paths]
    assert contact_sheet([("All", results)], columns=3, cell=64).width == 3 * 74 + 10


# Comparison


def test_compare_names_the_better_one(sharp_and_blurred, capsys):
    sharp, blurred = sharp_and_blurred / "blur0.png", sharp_and_blurred / "blur3.png"
    for order in ((sharp, blurred), (blurred, sharp)):
        out, _ = run(capsys, "compare", *order)
        *scores, sentence = out.splitlines()
        assert [line.split()[-1] for line in scores] == [str(path) for path in order]
        assert sentence.startswith(f"{sharp} is better: ")
    assert run(capsys, "compare", sharp, sharp)[0].endswith("the scores are equal\n")


@pytest.mark.parametrize(
    ("scores", "higher_is_better", "start"),
    [
        ((3.0, 2.0), True, "a is better: 1.000 apart, 7.1 × the standard error of 0.141"),
        ((3.0, 2.0), False, "b is better"),
        ((3.0, 2.0), None, "a is higher"),
        ((2.0, 2.1), True, "b may be better, other crops could say otherwise: 0.100 apart, 0.7 ×"),
    ],
)
def test_the_verdict_follows_direction_and_spread(scores, higher_is_better, start):
    a, b = (
        ImageScore(name, score, standard_error=0.1)
        for name, score in zip("ab", scores, strict=True)
    )
    assert verdict(a, b, higher_is_better).startswith(start)


def test_compare_needs_two_images_and_a_spread(photos, capsys):
    assert "no such image file" in run(capsys, "compare", photos[0], "no.png", code=2)[1]
    assert "one crop has no spread" in run(capsys, "compare", *photos[:2], "--crops", 1, code=2)[1]


# Maps


def test_map_writes_a_picture(photos, capsys, tmp_path):
    picture = tmp_path / "map.png"
    out, _ = run(capsys, "map", photos[1], "--out", picture, "--stride", 12)
    assert out.startswith(f"{picture}: ")
    assert "8 crops" in out
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > image.height / 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.png", "--out", "x.png"], "no.png: no such image file"),
        (["no.png", "--out", "x.gif"], "--out x.gif: must end in .png"),
    ],
)
def test_map_errors_are_one_line(arguments, words, capsys, monkeypatch):
    monkeypatch.setattr(scoring_options, "scorer_of", None)
    assert run(capsys, "map", *arguments, code=2) == ("", f"glpi: error: {words}\n")


def test_a_map_with_gaps_is_refused_and_writes_nothing(photos, capsys, tmp_path):
    picture = tmp_path / "map.png"
    _, err = run(capsys, "map", photos[0], "--out", picture, "--stride", 65, code=2)
    assert "error: --stride 65: must be 1 to 64 pixels" in err
    assert not picture.exists()
