"""PNG and TIFF files of more than 8 bits, as converters and scanners write them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile

RAMP = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)  # values of 12 bits
FULL = (RAMP << 4) | (RAMP >> 8)  # the same, scaled to 16 bits as the PNG standard does


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png(
    values: np.ndarray, colour: int = 0, significant: bytes = b"", hidden: bytes = b""
) -> bytes:
    """A PNG of 16 bits a channel, with an sBIT and a tRNS chunk where asked."""
    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", head)]
    parts += [chunk(b"sBIT", significant)] if significant else []
    parts += [chunk(b"tRNS", hidden)] if hidden else []
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def twelve_bit_tiff(values: np.ndarray) -> bytes:
    """Two values in three bytes, as BitsPerSample = 12 wants it."""
    first, second = values.reshape(-1, 2).T.astype(np.uint32)
    both = (first << 12) | second
    packed = np.stack([both >> 16, both >> 8, both], 1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags[279] = len(packed)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    tags[273] = 8 + 2 + len(entries) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4 + packed
