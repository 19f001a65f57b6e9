"""What the commands write: no photograph or foreign file is replaced, none left by halves."""

import csv
import io
import os

import pytest
from PIL import Image

from glpi_jax.cli.main import main
from glpi_jax.data.images import ImageError
from glpi_jax.scoring import contact_sheet, picture_files, scorer


@pytest.fixture
def photos(save, tmp_path, monkeypatch):
    """Three photographs, the folder `photos` of the current one."""
    monkeypatch.chdir(tmp_path)
    for name, height in (("a", 80), ("b", 90), ("c", 100)):
        save(f"photos/{name}.png", height, 70)
    return tmp_path / "photos"


def run(capsys, *arguments, code=0):
    assert main([*map(str, arguments)]) == code
    output = capsys.readouterr()
    return output.out, output.err


def error_of(capsys, *arguments):
    """The only line of a command that does nothing else."""
    out, err = run(capsys, *arguments, code=2)
    (line,) = err.splitlines()
    assert out == ""
    return line.removeprefix("glpi: error: ")


# Pictures


@pytest.mark.usefixtures("no_model")
def test_a_picture_replaces_no_photograph(photos, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    for command in (["map", "photos/a.png"], ["rank", "photos/b.png", "photos/c.png"]):
        assert error_of(capsys, *command, "--out", "photos/a.png") == (
            "--out photos/a.png: exists, and is no picture of glpi; give another name or delete it"
        )
    assert {path: path.read_bytes() for path in photos.iterdir()} == before


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("command", ["map", "rank"])
def test_a_picture_that_cannot_be_written_is_told_before_the_work(
    command, photos, capsys, monkeypatch
):
    def refused(out):
        return error_of(capsys, command, "photos/a.png", "--out", out)

    os.mkdir("folder.png")
    os.mkfifo("pipe.png")
    os.symlink("gone.png", "link.png")
    assert refused("folder.png") == "--out folder.png: this is a folder; name a file in it"
    for name in ("pipe.png", "link.png"):
        assert f"--out {name}: exists, and is no picture of glpi" in refused(name)
    monkeypatch.setattr(picture_files.os, "access", lambda *_: False)
    assert refused("new.png") == "--out new.png: the folder . cannot be written to"


def test_a_repeated_command_replaces_its_own_picture(photos, capsys):
    for command in (["map", "photos/a.png"], ["rank", "photos"]):
        first = run(capsys, *command, "--out", "photos/out.png")[0]
        assert run(capsys, *command, "--out", "photos/out.png")[0] == first
        with Image.open("photos/out.png") as picture:
            assert picture.info["Software"] == "glpi_jax"
    assert "out.png" not in first  # the sheet is not ranked
    assert error_of(capsys, "map", "photos/out.png", "--out", "photos/out.png") == (
        "--out photos/out.png: this is the photograph itself; give another name"
    )


def test_a_picture_goes_where_a_link_leads(photos, capsys):
    os.mkdir("elsewhere")
    run(capsys, "map", "photos/a.png", "--out", "elsewhere/out.png")
    before = os.stat("elsewhere/out.png").st_ino
    os.symlink("elsewhere/out.png", "link.png")
    for command in (["map", "photos/b.png"], ["rank", "photos"]):
        run(capsys, *command, "--out", "link.png")
        assert os.path.islink("link.png")
        after = os.stat("elsewhere/out.png").st_ino
        assert after != before
        before = after
    assert sorted(os.listdir("elsewhere")) == ["out.png"]


def test_a_ranking_is_printed_though_its_sheet_fails(photos, capsys, monkeypatch):
    def gone(name, *, apply_orientation):
        raise ImageError(f"{name}: the server answers 404")

    monkeypatch.setattr(contact_sheet, "read_pixels", gone)
    out, err = run(capsys, "rank", "photos", "--out", "sheet.png", code=2)
    assert len(out.splitlines()) == 3
    assert err.splitlines()[-1].endswith("the server answers 404")
    assert not os.path.exists("sheet.png")


# Files of scores


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_scores_replace_no_foreign_file(form, photos, capsys):
    kind = {"csv": "CSV", "jsonl": "JSON lines"}[form]
    table, line = b"image,label\na.png,3\n", b'{"image": "a.png", "label": 3}\n'
    labels = b'{"image": "a.png", "score": 3.5}\n'
    for content in (table, line, labels, b"\0\0ftypavif", b"["):
        with open("notes.avif", "wb") as file:
            file.write(content)
        for resume in ([], ["--resume"]):
            message = error_of(capsys, "score", "photos", f"--{form}", "notes.avif", *resume)
            assert message == (
                f"notes.avif: exists, and holds no scores as {kind}; give another name or delete it"
            )
        with open("notes.avif", "rb") as file:
            assert file.read() == content
    assert sorted(os.listdir()) == ["notes.avif", "photos"]


@pytest.mark.usefixtures("no_model")
def test_pipes_and_what_stdout_goes_to_are_refused(photos, capsys, monkeypatch):
    os.mkfifo("pipe")
    words = "a pipe, a device or what stdout goes to; --csv - writes to stdout"
    for name in ("pipe", "/dev/null"):
        assert error_of(capsys, "score", "photos", "--csv", name) == f"--csv {name}: {words}"
    open("out.csv", "w").close()
    monkeypatch.setattr("glpi_jax.scoring.score_file.os.fstat", lambda _: os.stat("out.csv"))
    assert error_of(capsys, "score", "photos", "--csv", "out.csv") == f"--csv out.csv: {words}"


def test_a_link_is_followed(photos, capsys):
    os.mkdir("results")
    os.symlink("results/scores.csv", "latest.csv")
    for _ in range(2):  # to nothing yet, and to earlier scores
        run(capsys, "score", "photos/a.png", "--csv", "latest.csv")
        assert os.path.islink("latest.csv")
        assert os.listdir("results") == ["scores.csv"]


def test_csv_on_stdout(photos, capsys, monkeypatch):
    name = "photos/日 ±.png"
    os.rename("photos/a.png", name)
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", printed)
    assert main(["score", name, "gone.png", "--csv", "-"]) == 2
    rows = list(csv.DictReader(io.StringIO(printed.buffer.getvalue().decode())))
    assert [row["image"] for row in rows] == [name, "gone.png"]
    assert rows[1]["error"] == "gone.png: no such file or folder"
    assert not os.path.exists("-")


# Going on


@pytest.fixture
def complete(photos, capsys):
    run(capsys, "score", "photos/a.png", "gone.png", "--jsonl", "s.jsonl", code=2)
    return "s.jsonl"


def test_a_complete_file_is_so_for_its_images_alone(complete, capsys, monkeypatch):
    monkeypatch.setattr(scorer, "read_model", None)
    _, err = run(capsys, "score", "gone.png", "--jsonl", complete, "--resume", code=2)
    assert "s.jsonl is complete" in err
    assert "1 of its 2 images had errors" in err
    words = "s.jsonl: complete, but without photos/b.png and 1 more; give these another file"
    assert words in error_of(capsys, "score", "photos", "--jsonl", complete, "--resume")
    names = io.TextIOWrapper(io.BytesIO(b"photos/a.png\nphotos/c.png\n"))
    monkeypatch.setattr("sys.stdin", names)
    words = "complete, but without photos/c.png; give"
    assert words in error_of(capsys, "score", "-", "--jsonl", complete, "--resume")
    with open(complete, "a") as file:
        file.write("null\n")
    words = "s.jsonl: damaged; delete it"
    assert words in error_of(capsys, "score", "photos/a.png", "--jsonl", complete, "--resume")
