"""I7: search bytes for secrets, in several spellings."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from tests.support.servers import children
from wxauth.keys import PREFIX, TAG_LENGTH


def spellings(secret: str) -> Iterator[bytes]:
    """Yield the secret plain, URL-encoded, in hex, and in base64, also as a part of longer base64."""
    raw = secret.encode()
    yield from (raw, quote(secret, safe="").encode(), quote_plus(secret).encode(), raw.hex().encode())
    yield raw.hex().upper().encode()
    yield repr(secret)[1:-1].encode()
    for before in range(3):
        # Leave out the characters of base64 that depend on the bytes before and after.
        whole = len(raw) - (before + len(raw)) % 3
        encoded = base64.b64encode(b"\0" * before + raw[:whole])[-(-before * 4 // 3) :]
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))


def random_part(token: str) -> str:
    """Return the secret part of a token. The hash tag before it and the signature after it may be logged."""
    body, _, _ = token.partition(".")
    return body[len(PREFIX) + TAG_LENGTH :]


def hits(secrets: Mapping[str, str], place: str, content: bytes) -> list[str]:
    """Return the names of the secrets that were found. The report must not show the secrets."""
    return sorted(
        {
            f"{name} in {place}"
            for name, secret in secrets.items()
            if any(text in content for text in spellings(secret))
        }
    )


def arguments(pid: int) -> Iterator[bytes]:
    """Yield the arguments of a process and its descendants. Any user of the machine can read them."""
    yield Path(f"/proc/{pid}/cmdline").read_bytes()
    for child in children(pid):
        yield from arguments(child)
