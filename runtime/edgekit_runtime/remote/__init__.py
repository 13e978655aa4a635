"""The other half: a tail server spoken to over gRPC with Open Inference (KServe V2) messages.

    open_inference.proto  the protocol; generated/ holds what protoc made of it
    messages.py           tensors to messages and back, checked
    client.py             one connection to one server: TLS, token
    call.py               one call: sent, read, given up
    lanes.py              how it travels: a channel for each call that is out, with a stream or unary calls
    grpc_errors.py        errors of gRPC translated
    alarms.py             one thread that starts what is overdue
    session.py            a session that chooses for each request and never loses one
    offers.py             what it can do with a bundle, with costs measured here: offer_*.py one kind each, offer.py
                          what they share; ways.py the device's part of each
    leaving.py            a chain with exits that hands over to a tail
    watch.py              early answers checked against the full student, and exits closed when they drift
    line.py               what all requests of a session share
    exchange.py           one request: sent, hedged, the first valid answer; answers.py what is valid
    behind.py             a request sent a second time, in a larger form, to learn the uplink
    pem.py                certificates and keys, looked at before gRPC takes them

Needs `edgekit[remote]` (grpcio, protobuf, lz4, zstandard). Nothing here is imported before a server is named.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.adaptive.state import Policy
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit_runtime.cascade import FirstStudent
    from edgekit_runtime.remote.session import AdaptiveSession
    from edgekit_runtime.session import Session

_OPTIONS = ("policy", "ca", "cert", "key", "token", "log", "ours", "first", "check_fraction")


def connect(local: Session, server: str, **options: Any) -> AdaptiveSession:
    """Joins a local session with a server; the local one is closed when that fails.

    Args:
        local: Open on a bundle.
        server: `grpc://HOST:PORT` or `grpcs://HOST:PORT`.
        options: `policy` (a `Policy`), `ca`, `cert`, `key` (paths of PEM files), `token`, `log` (a file that every
            decision is written to), `ours` (False: a V2 server of somebody else, which gets plain tensors only),
            `first` (path of a cheaper student's bundle, or several: cascades are then offered, too), `check_fraction`
            (share of early answers that the full student checks beside the requests: 0.02).

    Raises:
        UsageError: An option that does not exist, or one that cannot be.
        Refused: gRPC is not installed, or the bundle cannot be used with a server.
    """
    try:
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise UsageError(f"open has no option {', '.join(unknown)}", remedy=f"with a server: {', '.join(_OPTIONS)}")
        from edgekit_runtime.cascade import open_first
        from edgekit_runtime.exits import CHECK_FRACTION
        from edgekit_runtime.remote.client import Credentials
        from edgekit_runtime.remote.session import AdaptiveSession

        credentials = Credentials(
            ca=_path(options.get("ca")),
            cert=_path(options.get("cert")),
            key=_path(options.get("key")),
            token=options.get("token") or "",
        )
        if local.bundle is None and options.get("first") is not None:
            raise UsageError("a bare file has no cascade", remedy="convert it: edgekit convert FILE -o X.edge")
        named = options.get("first")
        paths = () if named is None else [named] if isinstance(named, (str, os.PathLike)) else list(named)
        first: list[FirstStudent] = []
        try:
            for path in paths:
                first.append(open_first(path, local, several=len(paths) > 1))
            return AdaptiveSession(
                local,
                server,
                options.get("policy") or Policy(),
                credentials=credentials,
                ours=options.get("ours", True),
                log=_path(options.get("log")),
                first=first,
                check_fraction=options.get("check_fraction", CHECK_FRACTION),
            )
        except BaseException:
            for student in first:
                student.close()
            raise
    except BaseException:
        local.close()
        raise


def _path(given: str | os.PathLike[str] | None) -> Path | None:
    return None if given is None else Path(given)
