"""What is taken for a video, and the scores of its frames, on the command line and from Python."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from video_clips import H264, READ_FROM_THE_START, write_sound, write_video

from glpi_jax.cli.main import _parser, main
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.preprocessing import ASSUMED
from glpi_jax.scoring import Crops, Scorer, reading, video_frames
from glpi_jax.scoring.inputs import list_inputs
from glpi_jax.scoring.reading import Reader
from glpi_jax.scoring.video import EVERY_SECONDS, SIGNATURE_BYTES, has_video_signature, is_video


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(path):
    return [frame.name for frame in video_frames(path)]


# What is taken for a video


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov", "flv", "webm"])
def test_a_video_is_known_by_its_content(suffix):
    codec = {"codec": "libvpx", "encoder": {}} if suffix == "webm" else H264
    path = write_video(f"a.{suffix}", frames=2, **codec)
    head = Path(path).read_bytes()[:SIGNATURE_BYTES]
    assert has_video_signature(head)
    os.rename(path, "clip")
    assert is_video("clip")
    os.rename("clip", "clip.jpg")
    assert not is_video("clip.jpg")  # an image by its name; reading it says what it is


def test_an_image_is_no_video(save):
    for suffix in ("png", "jpg", "webp", "tif", "bmp", "gif", "jp2"):
        path = save(f"a.{suffix}", 70, 80)
        assert not has_video_signature(path.read_bytes())
        path = path.rename(path.with_suffix(""))
        assert not is_video(path)
    for brand in (b"avif", b"heic", b"mif1"):  # in the container of MP4
        assert not has_video_signature(b"\0\0\0\x20ftyp" + brand)


@pytest.mark.usefixtures("here")
def test_what_cannot_be_read_is_no_video():
    os.mkfifo("pipe.mp4")
    os.mkdir("folder.mp4")
    for name in ("pipe.mp4", "folder.mp4", "gone.mp4", "zero\0.mp4"):
        assert not is_video(name)


def test_a_folder_is_searched_for_images_alone(save, here):
    save("clips/a.png", 70, 80)
    write_video("clips/b.mp4", frames=2)
    assert list(list_inputs(["clips"])) == ["clips/a.png"]
    assert list(list_inputs(["clips/*"])) == ["clips/a.png", "clips/b.mp4"]


# Scores


def test_the_command_has_the_same_interval_as_the_function():
    assert _parser().parse_args(["score", "a.mp4"]).every_seconds == EVERY_SECONDS


def scored(capsys, *arguments, code=0):
    assert main(["score", "--crops", "1", *map(str, arguments)]) == code
    return capsys.readouterr()


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_frames_are_scored_as_images_are(scorer, here):
    path = write_video("a.mp4")
    pixels = [frame.pixels for frame in video_frames(path)]
    results = scorer.score(video_frames(path))
    assert [result.image for result in results] == names(path)
    expected = [result.score for result in scorer.score(pixels)]
    assert [result.score for result in results] == pytest.approx(expected, rel=1e-6)
    assert scorer.score(next(video_frames(path))).image == "a.mp4#0.000"


@pytest.mark.usefixtures("here")
def test_random_crops_of_a_frame_follow_its_name():
    def crops_of(path):
        reader = Reader(Crops(2, "random"), preprocessing=ASSUMED, side=32, ahead=1)
        return [crops for _, crops in reader.read(video_frames(path))]

    os.mkdir("deep")
    first = crops_of(write_video("a.mp4", frames=12))
    os.rename("a.mp4", "deep/a.mp4")
    same = crops_of("deep/a.mp4")
    os.rename("deep/a.mp4", "b.mp4")
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, crops_of("b.mp4"))


def test_photographs_and_videos_in_one_run(save, here, capsys):
    save("clips/a.png", 70, 80)
    write_video("clips/b.mp4")
    write_sound("clips/c.mp4")
    content = Path(write_video("clips/d.mp4", muxer=READ_FROM_THE_START)).read_bytes()
    Path("clips/d.mp4").write_bytes(content[: len(content) * 3 // 4])
    save("clips/e.png", 70, 80)
    out, err = scored(capsys, "--jsonl", "-", "clips/*", "--every-seconds", "1.2", code=2)
    results = rows(out)
    assert [result["image"] for result in results] == [
        "clips/a.png", "clips/b.mp4#0.000", "clips/b.mp4#1.200", "clips/b.mp4#2.400",
        "clips/c.mp4", "clips/d.mp4#0.000", "clips/d.mp4#1.200", "clips/d.mp4", "clips/e.png",
    ]  # fmt: skip
    assert ["error" in result for result in results] == [n in (4, 7) for n in range(9)]
    assert len([line for line in err.splitlines() if "error: clips/" in line]) == 2
    table = scored(capsys, "clips", "clips/b.mp4").out
    assert [line.split()[-1] for line in table.splitlines()] == [
        "clips/a.png", "clips/e.png", *names("clips/b.mp4")
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_run_goes_on_amid_a_video(here, capsys, monkeypatch, form):
    path = write_video("a.mp4")
    original = Scorer.score_iter
    asked = []

    def score_iter(self, images, stop=2):
        for number, result in enumerate(original(self, images)):
            if number == stop:
                raise KeyboardInterrupt
            yield result

    def watched(self, images):
        for result in original(self, images):
            asked.append(result.image)
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_iter", score_iter)
        scored(capsys, f"--{form}", f"s.{form}", path, code=130)
    _, err = scored(
        capsys, f"--{form}", f"s.{form}", path, "--resume", "--every-seconds", 0.5, code=2
    )
    assert "begun with every_seconds 1.0, not 0.5" in err
    monkeypatch.setattr(Scorer, "score_iter", watched)
    scored(capsys, f"--{form}", f"s.{form}", path, "--resume")
    assert asked == ["a.mp4#2.000"]
    content = Path(f"s.{form}").read_text()
    assert [content.count(name) for name in names(path)] == [1, 1, 1]


def test_the_package_is_named_if_it_is_absent(save, here, capsys, monkeypatch):
    save("a.png", 70, 80)
    write_video("b.mp4", frames=2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(GlpiError, match="needs av: pip install"):
        video_frames("b.mp4")
    out, err = scored(capsys, "a.png", "b.mp4", "--csv", "s.csv", code=2)
    assert out == ""
    assert err == ("glpi: error: b.mp4: a video, which needs av: pip install 'glpi_jax[video]'\n")
    assert sorted(os.listdir()) == ["a.png", "b.mp4"]
    assert "a.png" in scored(capsys, "a.png").out  # images need it not


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["a.mp4", "--every-seconds", "-1"], "--every-seconds -1: must be 0"),
        (["a.png", "--csv", "a.mp4"], "--csv a.mp4: this would replace a video"),
    ],
)
def test_options_that_make_no_sense(options, words, capsys):
    out, err = scored(capsys, *options, code=2)
    assert (out, err.startswith(f"glpi: error: {words}")) == ("", True)


def test_a_video_that_is_not_there_is_one_among_others(save, here, capsys):
    save("a.png", 70, 80)
    out, err = scored(capsys, "gone.mp4", "a.png", code=2)
    assert "a.png" in out
    assert "error: gone.mp4: no such file or folder" in err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["rank", "a.mp4"], "`glpi score` and video_frames take its frames"),
        (["rank", "a.ts"], "`glpi score` and video_frames take its frames"),  # known by its suffix
        (["compare", "a.mp4", "a.mp4"], "`glpi score` and video_frames take its frames"),
        (["map", "a.mp4", "--out", "m.png"], "`glpi score` and video_frames take its frames"),
        (["map", "a.jpg", "--out", "m.png"], "give its name the suffix of a video for its frames"),
        (["score", "a.jpg"], "give its name the suffix of a video for its frames"),
    ],
)
def test_a_video_in_the_place_of_an_image(arguments, remedy, capsys):
    os.rename(write_video("a.mov", frames=2), "a.mp4")
    shutil.copy("a.mp4", "a.jpg")
    write_video("a.ts", frames=2, **H264)
    assert main(arguments) == 2
    message = f"error: {arguments[1]}: a video, an image is needed; {remedy}\n"
    assert message in capsys.readouterr().err


def test_a_video_of_a_url_is_to_be_downloaded(here, scorer, monkeypatch):
    content = Path(write_video("a.mp4", frames=2)).read_bytes()
    monkeypatch.setattr(reading, "fetch_image", lambda name, stop: content)
    assert scorer.score("https://host/a.mp4").error == (
        "https://host/a.mp4: a video, an image is needed; download it for its frames"
    )
