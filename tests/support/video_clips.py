"""Small videos, written by PyAV."""

from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

RATE = 10


def scene(index, height=64, width=96):
    """Four patches of colour, the upper left one red, under grain; both differ between frames."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (200, 40, 40)
    image[: height // 2, width // 2 :] = (40, 180, 60)
    image[height // 2 :, : width // 2] = (50, 60, 200)
    image[height // 2 :, width // 2 :] = (140, 140, 30)
    grain = np.random.default_rng(index).integers(0, 16, (height, width, 1), dtype=np.uint8)
    return image + np.uint8(index % 50) + grain


def write_video(path, *, frames=25, rate=RATE, codec="mpeg4", first=0, **options):
    """Frames of `scene`.

    Options: `turn` in degrees, `title`, `muxer` and `encoder` options, `color` as (matrix, range).
    """
    matrix, color_range = options.get("color", (None, None))
    with av.open(path, "w", options=options.get("muxer", {})) as container:
        container.metadata["title"] = options.get("title", "")
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = options.get("encoder", {"qmin": "1", "qmax": "1"})
        if matrix is not None:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = color_range
        if "turn" in options:
            stream.set_display_rotation(options["turn"])
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(index), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=matrix, dst_color_range=color_range
            )
            frame.pts, frame.time_base = first + index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# With B-frames, which are decoded after later ones.
B_FRAMES = {"crf": "4", "x264-params": "bframes=2:b-adapt=0:scenecut=0"}
H264 = {"codec": "libx264", "encoder": B_FRAMES}
READ_FROM_THE_START = {"movflags": "faststart"}  # so that half a file is of use


def write_sound(path, *, cover=False):
    """A second of silence, with a picture of the record if wanted."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 96, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
        samples = np.zeros((1, 8000), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if cover:
            frame = av.VideoFrame.from_ndarray(scene(0), format="rgb24")
            container.mux(picture.encode(frame.reformat(format="yuvj420p")))
            container.mux(picture.encode())
    return path


def without_frames(path):
    """A video stream that its header announces, and nothing more."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    return path


class CountingContainer:
    """An opened video that counts the packets which are taken from it."""

    taken = 0

    def __init__(self, container):
        self._container = container

    def __enter__(self):
        self._container.__enter__()
        return self

    def __exit__(self, *error):
        return self._container.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self._container, name)

    def demux(self):
        for packet in self._container.demux():
            CountingContainer.taken += 1
            yield packet
