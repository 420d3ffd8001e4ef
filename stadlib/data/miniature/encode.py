"""A small H.264 writer without torch, so that a rendering process starts in a moment."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np


def encode(path: Path, frames: Iterable[np.ndarray], size: tuple[int, int], rate: int) -> None:
    """Write RGB uint8 frames (H, W, 3) of ``size`` (width, height); equal frames, equal bytes.

    One encoder thread, no B-frames, a keyframe every second: cheap random access.
    """
    options = {"crf": "20", "preset": "veryfast", "threads": "1", "bf": "0", "g": str(rate)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
