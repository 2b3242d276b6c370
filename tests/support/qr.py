"""Read a QR code with another library than the one that draws it."""

from __future__ import annotations

import struct
import zlib

import zxingcpp

SIGNATURE_SIZE = 8


def text_of(png: bytes) -> str:
    """Return the text of the one QR code in a black and white PNG."""
    (found,) = zxingcpp.read_barcodes(_pixels(png))
    return str(found.text)


def _pixels(png: bytes) -> memoryview:
    """Return the rows of a PNG with one bit for each pixel, as bytes of 0 and 255."""
    chunks = _chunks(png)
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks["IHDR"])
    assert (depth, colour) == (1, 0)
    packed, row, pixels = zlib.decompress(chunks["IDAT"]), bytes((width + 7) // 8), bytearray()
    for start in range(0, len(packed), len(row) + 1):
        kind, line = packed[start], packed[start + 1 : start + 1 + len(row)]
        assert kind in (0, 2)  # no filter, or the difference to the row above
        row = bytes((byte + above * (kind == 2)) % 256 for byte, above in zip(line, row, strict=True))
        pixels += bytes(255 * int(bit) for bit in "".join(f"{byte:08b}" for byte in row)[:width])
    return memoryview(bytes(pixels)).cast("B", (height, width))


def _chunks(png: bytes) -> dict[str, bytes]:
    found, start = dict[str, bytes](), SIGNATURE_SIZE
    while start < len(png):
        size, kind = struct.unpack_from(">I4s", png, start)
        found[kind.decode()] = found.get(kind.decode(), b"") + png[start + 8 : start + 8 + size]
        start += size + 12
    return found
