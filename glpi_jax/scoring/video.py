"""Frames of videos, decoded one after the other by PyAV, which comes with the extra `video`."""

import math
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import IMAGE_SUFFIXES, ImageError
from glpi_jax.scoring.results import Problem

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    {
        ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
        ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
    }
)  # fmt: skip
EVERY_SECONDS = 1.0
SIGNATURE_BYTES = 16

# Containers alone: FFmpeg would take a playlist too, and open whatever files and URLs it names.
_FORMATS = "asf,avi,flv,matroska,mov,mpeg,mpegts,ogg"
# Those whose duration is not in a header but estimated from what is there.
_WITHOUT_DURATION = ("mpeg", "mpegts", "ogg")
_MAX_PIXELS = 2**27  # of a frame; 16K has fewer
_TOLERANCE_SECONDS = 1  # that durations and orders of frames may be wrong by in a good file

_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"OggS",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF
    b"\x00\x00\x01\xba",  # MPEG program stream
)
_STILL_BRANDS = (b"avif", b"avis", b"crx ", b"heic", b"heix", b"mif1", b"msf1")
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics, numbered as in ITU-T H.273


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
        name: the video's path and the time, as in `clip.mp4#12.480`; no two frames share one.
        seconds: after the video's first frame.
        pixels: (height, width, 3) uint8 RGB, turned as the video says.
        note: what is unusual about it, in words.
    """

    name: str
    seconds: float
    pixels: np.ndarray
    note: str | None = None


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a video: by its suffix, or by its content if no image has that suffix.

    What is no regular file, or cannot be read, is none.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix in IMAGE_SUFFIXES or not os.path.isfile(path):
        return False
    if suffix in VIDEO_SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            return has_video_signature(file.read(SIGNATURE_BYTES))
    except OSError:
        return False


def has_video_signature(data: bytes) -> bool:
    """Whether a file with this content is a video, as far as its first `SIGNATURE_BYTES` tell."""
    if data[4:8] == b"ftyp":
        return data[8:12] not in _STILL_BRANDS
    return (
        data.startswith(_STARTS)
        or data[4:8] in (b"mdat", b"moov", b"wide")  # QuickTime
        or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")
    )


def check_interval(every_seconds: float) -> Fraction:
    """The interval, exactly as it reads in decimal; GlpiError if it is negative or no number."""
    if not math.isfinite(every_seconds) or every_seconds < 0:
        raise GlpiError(
            f"every_seconds {every_seconds:g}: must be 0, which is every frame, or more"
        )
    return Fraction(str(every_seconds))


def check_package(path: str | os.PathLike[str]) -> None:
    """Raise `GlpiError` if PyAV, which reads this video, is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise GlpiError(
            f"{os.fspath(path)}: a video, which needs {error.name}: pip install 'glpi_jax[video]'"
        ) from error


def video_frames(
    path: str | os.PathLike[str], every_seconds: float = EVERY_SECONDS
) -> Iterator[Frame | Problem]:
    """Yield frames of a video at regular times, each decoded when it is asked for.

    They are the first one, and of every later interval the first that begins in it. So the same
    file gives the same frames, and a frame has the same name at all intervals that meet it.
    `Scorer.score` and `Scorer.score_iter` take them.

    Args:
        path: of a file; sound and subtitles in it are passed over, and of several pictures FFmpeg's
            choice is taken.
        every_seconds: the interval; 0 is every frame. Of frames within a millisecond the first is
            taken.

    Yields:
        frames in order; last, if the video cannot be read (to its end), a `Problem` that says why.

    Raises:
        GlpiError: PyAV is not installed, or the interval is negative.
    """
    interval = check_interval(every_seconds)
    check_package(path)
    return _frames(os.fspath(path), interval)


class _Damage(Exception):
    """What is wrong with a video, found behind its good frames."""


def _frames(path: str, interval: Fraction) -> Iterator[Frame | Problem]:
    import av

    due = Fraction(0)
    taken = -1  # milliseconds
    try:
        for position, frame in _decode(path):
            if position < Fraction(taken, 1000) - _TOLERANCE_SECONDS:
                raise ImageError(
                    f"{path}: times go back from {taken / 1000:.3f} to {float(position):.3f} s;"
                    " split it there"
                )
            milliseconds = round(position * 1000)
            if position < due or milliseconds <= taken:
                continue
            taken = milliseconds
            due = (position // interval + 1) * interval if interval else due
            seconds = taken / 1000
            hdr = _HDR.get(frame.color_trc)
            note = f"HDR ({hdr}): scored without tone mapping" if hdr else None
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            yield Frame(f"{path}#{seconds:.3f}", seconds, np.ascontiguousarray(pixels), note)
        if taken < 0:
            raise ImageError(f"{path}: no frame in this video")
    except ImageError as error:
        yield Problem(path, str(error))
    except (av.FFmpegError, OSError) as error:
        cause = error.strerror or type(error).__name__
        yield Problem(path, f"{path}: the video cannot be read ({cause})")


def _decode(path: str) -> Iterator[tuple[Fraction, "av.VideoFrame"]]:
    """All frames up to an ImageError of a damaged one, and their seconds after the first."""
    import av

    _check_file(path)
    # Titles need not be UTF-8. From PyAV 19 on that is how they are read, without an option.
    is_19 = int(av.__version__.split(".")[0]) >= 19
    replacing: dict[str, Any] = {} if is_19 else {"metadata_errors": "replace"}
    with ExitStack() as stack:
        # Opened here, so that FFmpeg takes no name for one of its protocols.
        file = stack.enter_context(open(path, "rb"))
        try:
            container = stack.enter_context(
                av.open(file, "r", options={"format_whitelist": _FORMATS}, **replacing)
            )
        except av.FFmpegError as error:
            raise ImageError(
                f"{path}: no video of a kind that is read, or part of it is missing"
                f" ({error.strerror})"
            ) from error
        stream = _picture_of(path, container)
        avi = container.format.name == "avi"
        ticks: int | None = None
        first, reached = None, "before its first frame"
        try:
            for frame in _frames_until_damage(container, stream):
                if not avi:
                    ticks = frame.pts
                # AVI has a tick a frame, and no times of presentation.
                elif frame.dts is not None:
                    ticks = frame.dts
                elif ticks is not None:
                    ticks += 1
                if ticks is None or stream.time_base is None:
                    raise ImageError(
                        f"{path}: frames without times; ffmpeg -i FILE -c copy NEW.mkv gives some"
                    )
                time = ticks * stream.time_base
                first = time if first is None else first
                reached = f"after {float(time - first):.3f} s"
                yield time - first, frame
        except _Damage as damage:
            raise ImageError(f"{path}: damaged or cut off {reached} ({damage})") from damage


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such video file") from None
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: a folder, pipe or device; a video file is needed")
    if not status.st_size:
        raise ImageError(f"{path}: the file is empty")


def _picture_of(path: str, container: "InputContainer") -> "VideoStream":
    from av.stream import Disposition
    from av.video.stream import VideoStream

    stream = container.streams.best("video")
    # The cover of a song is a video of one frame.
    if not isinstance(stream, VideoStream) or Disposition.attached_pic in stream.disposition:
        raise ImageError(f"{path}: no picture in this file, only sound or other data")
    if not stream.codec_context:
        raise ImageError(f"{path}: there is no decoder for its codec; convert it to H.264")
    if stream.width * stream.height > _MAX_PIXELS:
        raise ImageError(f"{path}: {stream.width}×{stream.height} pixels are too many for a video")
    stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
    stream.thread_type = "AUTO"
    return stream


def _frames_until_damage(
    container: "InputContainer", stream: "VideoStream"
) -> Iterator["av.VideoFrame"]:
    """Frames up to a _Damage, with those that the decoder still holds when it meets that."""
    import av

    damage, begun, end = "", False, Fraction(0)
    try:
        for packet in container.demux():
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                end = max(end, (time + (packet.duration or 0)) * packet.time_base)
            # A recording may begin amid frames that follow from others.
            if packet.stream_index != stream.index or not (begun or packet.is_keyframe):
                continue
            begun = True
            if packet.is_corrupt:
                damage = "a part of a frame is missing"
                break
            yield from _undamaged(stream.codec_context.decode(packet))
    except av.FFmpegError as error:
        damage = error.strerror or type(error).__name__
    if damage:
        with suppress(av.FFmpegError):
            yield from _undamaged(stream.codec_context.decode(None))
        raise _Damage(damage)
    if container.duration is not None and container.format.name not in _WITHOUT_DURATION:
        duration = Fraction(container.duration, av.time_base)
        if end < duration - _TOLERANCE_SECONDS:
            raise _Damage(f"it should last {float(duration):.3f} s")


def _undamaged(frames: list["av.VideoFrame"]) -> Iterator["av.VideoFrame"]:
    for frame in frames:
        if frame.is_corrupt:
            raise _Damage("a frame is corrupt")
        yield frame
