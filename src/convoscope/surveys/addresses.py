"""Files that lie elsewhere: fsspec's file system for an address."""

from __future__ import annotations

import os
from typing import Any

from ..errors import UsageError
from ..extras import need


def filesystem(uri: str) -> tuple[Any, str]:
    """fsspec's file system for a URI, and the path in it. Raises :class:`MissingExtra`, :class:`UsageError`."""
    fsspec = need("fsspec", "Reading pictures by URI")
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise UsageError(f"{uri}: {short(error)}: install what fsspec asks for.") from None
    except ValueError as error:
        raise UsageError(f"{uri}: no such kind of address ({short(error)}).") from None
    return fs, str(path)


def short(error: BaseException) -> str:
    """What an error says, in one line of 160 characters at most."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def allow_plain_http(path: str) -> None:
    """Let Lance speak to an S3 server whose address the user gave as ``http://``; it would refuse otherwise."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if path.startswith("s3") and endpoint.startswith("http://"):
        os.environ.setdefault("AWS_ALLOW_HTTP", "true")
