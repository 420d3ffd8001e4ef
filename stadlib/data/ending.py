"""Where a video file says it ends: the cheapest proof that a download was cut short.

Decoders hide a missing end: Matroska just stops, MP4 may lose its last fragment unnoticed. The
sizes that the containers declare are exact (ISO/IEC 14496-12 boxes, RFC 9559 elements, RIFF).
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML = bytes.fromhex("1a45dfa3")
_SEGMENT = bytes.fromhex("18538067")
_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def ends_early(path: Path) -> bool:
    """True where the container declares more bytes than the file has; False if it says nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in _MP4_STARTS:
            return _boxes_end(file, size) > size
        if head[:4] == _EBML:
            return _segment_end(file) > size
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return 8 + int.from_bytes(head[4:8], "little") > size
    return False


def _boxes_end(file: BinaryIO, size: int) -> int:
    """End of the last top-level box; trailing bytes that are no box are left alone."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if not header[4:8].isascii() or not header[4:8].strip(b"\0"):
            break
        if length == 1:  # the length follows in 64 bits
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            break
        end += length
    return end


def _segment_end(file: BinaryIO) -> int:
    """End of Matroska's one segment; 0 for a live stream, whose segment has no size."""
    file.seek(4)
    length = _variable_number(file)
    if length is None:
        return 0
    file.seek(length, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _variable_number(file)
    return 0 if length is None else file.tell() + length


def _variable_number(file: BinaryIO) -> int | None:
    """EBML's variable-length integer: leading zero bits tell its width, all ones "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    number = int.from_bytes(bytes([first[0] - (1 << (8 - width))]) + file.read(width - 1), "big")
    return None if number == (1 << (7 * width)) - 1 else number
