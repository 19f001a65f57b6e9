"""Frames of videos: which are taken, what they are called, what they show, and what is damaged."""

import itertools
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import (
    H264,
    RATE,
    READ_FROM_THE_START,
    CountingContainer,
    scene,
    without_frames,
    write_sound,
    write_video,
)

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.preprocessing import ASSUMED
from glpi_jax.scoring import Crops, Frame, Problem, video, video_frames
from glpi_jax.scoring.reading import Reader


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(path, *arguments):
    return [frame.name for frame in video_frames(path, *arguments)]


def good_and_bad(path, every_seconds=0):
    *frames, problem = video_frames(path, every_seconds)
    assert all(isinstance(frame, Frame) for frame in frames)
    assert isinstance(problem, Problem)
    assert problem.name == str(path)
    return frames, problem.error


# Times and names


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("codec", [{}, H264])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "ts"])
def test_a_frame_a_second_named_by_its_time(suffix, codec):
    path = write_video(f"a.{suffix}", **codec)
    assert names(path) == [f"{path}#0.000", f"{path}#1.000", f"{path}#2.000"]
    frames = list(video_frames(path, 0.4))
    assert [frame.seconds for frame in frames] == [0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4]
    for frame in frames:
        expected = scene(round(frame.seconds * RATE)).astype(int)
        assert np.abs(frame.pixels - expected).mean() < 4


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("every_seconds", "expected"),
    [
        (0, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (0.01, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (0.1, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (0.15, [0.0, 0.2, 0.3, 0.5]),  # the first at or after 0, 0.15, 0.3, 0.45
        (7, [0.0]),
    ],
)
def test_the_first_frame_of_each_interval(every_seconds, expected):
    path = write_video("a.mp4", frames=6)
    assert [frame.seconds for frame in video_frames(path, every_seconds)] == expected


@pytest.mark.usefixtures("here")
def test_time_begins_with_the_first_frame():
    assert names(write_video("late.mkv", frames=12, first=70)) == [
        "late.mkv#0.000", "late.mkv#1.000"
    ]  # fmt: skip


@pytest.mark.usefixtures("here")
def test_frames_within_a_millisecond_do_not_share_a_name():
    with av.open("quick.mov", "w", options={"video_track_timescale": "10000"}) as container:
        stream = container.add_stream("mjpeg", rate=10000)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(scene(index), format="rgb24")
            frame.pts, frame.time_base = 4 * index, Fraction(1, 10000)
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())
    with av.open("quick.mov") as container:
        assert len(list(container.decode(video=0))) == 12
    assert names("quick.mov", 0) == [f"quick.mov#0.00{n}" for n in range(5)]


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
def test_an_interval_that_is_none(wrong):
    with pytest.raises(GlpiError, match=f"every_seconds {wrong}: must be 0, which is"):
        video_frames("a.mp4", wrong)


# Pixels


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "options",
    [
        {},
        H264,
        {**H264, "color": (1, 1)},  # BT.709
        {**H264, "color": (1, 2)},  # and all of 0..255
        {**H264, "color": (5, 2)},  # BT.601
    ],
)
def test_colours_are_those_that_were_filmed(options):
    frames = list(video_frames(write_video("a.mkv", frames=12, **options)))
    for frame, index in zip(frames, (0, 10), strict=True):
        assert (frame.pixels.dtype, frame.pixels.shape) == (np.uint8, (64, 96, 3))
        for y, x in itertools.product((16, 48), (24, 72)):
            patch = np.s_[y - 8 : y + 8, x - 8 : x + 8]
            filmed = scene(index)[patch].mean(axis=(0, 1))
            assert np.abs(frame.pixels[patch].mean(axis=(0, 1)) - filmed).max() < 4


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("turn", "quarters"), [(90, 1), (180, 2), (-90, -1)])
def test_a_turned_video_is_upright(turn, quarters):
    path = write_video("a.mov", frames=1, turn=turn)
    (frame,) = video_frames(path)
    assert frame.pixels.flags.c_contiguous
    expected = np.rot90(scene(0), quarters).astype(int)
    assert frame.pixels.shape == expected.shape
    assert np.abs(frame.pixels - expected).mean() < 4


@pytest.mark.usefixtures("here")
def test_hdr_is_noted(scorer):
    path = write_video(
        "a.mkv", frames=1, codec="libx264", encoder={"x264-params": "transfer=smpte2084"}
    )
    (result,) = scorer.score(video_frames(path))
    assert "HDR (PQ): scored without tone mapping" in result.note


# Memory


def test_a_frame_is_decoded_when_it_is_asked_for(here, monkeypatch):
    path = write_video(here / "long.mkv", frames=1000)
    open_container = av.open
    monkeypatch.setattr(
        av, "open", lambda *args, **options: CountingContainer(open_container(*args, **options))
    )
    monkeypatch.setattr(CountingContainer, "taken", 0)
    held = 2 + 2 * (os.cpu_count() or 1)  # in the decoder's threads
    frames = video_frames(path)
    assert CountingContainer.taken == 0
    for seconds in range(3):
        assert next(frames).seconds == seconds
        assert 10 * seconds < CountingContainer.taken <= 10 * seconds + held
    frames.close()
    CountingContainer.taken = 0
    reader = Reader(Crops(1), preprocessing=ASSUMED, side=64, ahead=2)
    readings = reader.read(video_frames(path))
    assert next(readings)[0].image == f"{path}#0.000"
    ahead = 2 + min(8, os.cpu_count() or 1)
    assert 0 < CountingContainer.taken <= 10 * ahead + held
    readings.close()


# Damage


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("codec", [{}, H264])
def test_frames_before_the_end_of_half_a_file_are_kept(suffix, codec):
    muxer = READ_FROM_THE_START if suffix == "mp4" else {}
    path = Path(write_video(f"a.{suffix}", muxer=muxer, **codec))
    whole = {frame.name: frame.pixels for frame in video_frames(path, 0)}
    assert len(whole) == 25
    content = path.read_bytes()
    for part, least in ((0.97, 24), (0.75, 18), (0.5, 11)):
        path.write_bytes(content[: int(len(content) * part)])
        frames = [frame for frame in video_frames(path, 0) if isinstance(frame, Frame)]
        assert least <= len(frames) <= least + 1
        # Frames of AVI are counted; behind a missing B-frame the last one is counted as that.
        counted = suffix == "avi" and codec == H264
        for frame in frames[:-1] if counted else frames:
            np.testing.assert_array_equal(frame.pixels, whole[frame.name])
    frames, error = good_and_bad(path)
    assert f"{path}: damaged or cut off after {frames[-1].seconds:.3f} s (" in error


@pytest.mark.usefixtures("here")
def test_frames_before_damage_in_the_middle_are_kept():
    path = write_video("a.mp4")
    whole = [frame.pixels for frame in video_frames(path, 0)]
    content = bytearray(Path(path).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    Path(path).write_bytes(content)
    frames, error = good_and_bad(path)
    assert 5 < len(frames) < 20
    for frame, expected in zip(frames, whole, strict=False):
        np.testing.assert_array_equal(frame.pixels, expected)
    assert "damaged or cut off after" in error


@pytest.mark.usefixtures("here")
def test_a_recording_that_begins_between_whole_frames():
    encoder = {"crf": "4", "x264-params": "keyint=8:scenecut=0:bframes=0"}
    path = write_video("a.ts", codec="libx264", encoder=encoder)
    whole = [frame.pixels for frame in video_frames(path, 0)]
    content = Path(path).read_bytes()
    Path("cut.ts").write_bytes(content[len(content) // 5 // 188 * 188 :])
    frames = list(video_frames("cut.ts", 0))
    assert frames[0].name == "cut.ts#0.000"
    assert len(frames) == 17  # from the second key frame on
    for frame, expected in zip(frames, whole[8:], strict=True):
        np.testing.assert_array_equal(frame.pixels, expected)


@pytest.mark.usefixtures("here")
def test_what_is_no_whole_video(monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    content = Path(write_video("whole.mp4")).read_bytes()
    h264 = Path(write_video("h264.mp4", **H264)).read_bytes()
    files = {
        "end.mp4": (content[:-300], "no video of a kind that is read, or part of it is missing ("),
        "noise.mp4": (b"noise" * 99, "no video of a kind that is read, or part of it is missing ("),
        "empty.mp4": (b"", "the file is empty"),
        "codec.mp4": (h264.replace(b"avc1", b"xxxx"), "there is no decoder for its codec"),
        "sound.mp4": (Path(write_sound("s.mp4")).read_bytes(), "no picture in this file"),
        "song.mp4": (
            Path(write_sound("c.mp4", cover=True)).read_bytes(),
            "no picture in this file",
        ),
        "blank.mp4": (Path(without_frames("n.mp4")).read_bytes(), "no picture in this file"),
    }
    for name, (data, words) in files.items():
        Path(name).write_bytes(data)
        frames, error = good_and_bad(name)
        assert frames == []
        assert error.startswith(f"{name}: {words}")
    write_video("a.mp4", frames=1)
    monkeypatch.setattr(video, "_MAX_PIXELS", 6000)
    assert good_and_bad("a.mp4") == ([], "a.mp4: 96×64 pixels are too many for a video")
    monkeypatch.setattr(video, "open", refuse, raising=False)
    assert good_and_bad("a.mp4")[1] == "a.mp4: the video cannot be read (Permission denied)"
    assert good_and_bad("gone.mp4") == ([], "gone.mp4: no such video file")
    assert good_and_bad(".")[1] == ".: a folder, pipe or device; a video file is needed"


@pytest.mark.usefixtures("here")
def test_a_stream_without_a_frame():
    content = Path(write_video("a.ts", **H264)).read_bytes()
    Path("b.ts").write_bytes(content[len(content) // 2 // 188 * 188 :])  # without the key frame
    assert good_and_bad("b.ts") == ([], "b.ts: no frame in this video")


@pytest.mark.usefixtures("here")
def test_times_that_go_back():
    path = Path(write_video("a.mpg", codec="mpeg2video", rate=25, frames=50))
    assert len(names(path, 0.2)) == 10
    path.write_bytes(path.read_bytes() * 2)
    frames, error = good_and_bad(path, 0.2)
    assert [frame.seconds for frame in frames] == [n / 5 for n in range(10)]
    assert error == "a.mpg: times go back from 1.800 to 0.000 s; split it there"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\na.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile a.ts\n"),
    ],
)
def test_a_playlist_opens_nothing(name, text):
    write_video("a.ts", **H264)
    Path(name).write_text(text)
    assert good_and_bad(name)[0] == []


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", [os.fsdecode(b"latin \xe9.mp4"), "file:x|y.mp4", "日本.mp4"])
def test_names_of_any_kind(name):
    write_video("plain.mp4")
    os.rename("plain.mp4", name)
    assert names(name)[1] == f"{name}#1.000"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mov"])
def test_a_title_that_is_no_utf8(suffix):
    path = write_video(f"clip{suffix}", title="a cafe")
    content = Path(path).read_bytes()
    assert content.count(b"a cafe") == 1
    Path(path).write_bytes(content.replace(b"a cafe", b"a caf\xe9"))
    assert names(path)[1] == f"{path}#1.000"
