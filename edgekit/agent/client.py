"""The workstation's side: reaches an agent, brings the bundle once, waits for the documents."""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from edgekit.agent import wire
from edgekit.agent.channels import SocketChannel
from edgekit.agent.wire import Lost, Wire
from edgekit.files import write_texts
from edgekit.profiler.request import Request
from edgekit.profiler.targets import SUFFIXES
from edgekit.profiler.where import Access, Where
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import (
    BundleInvalid,
    EdgekitError,
    EngineMissing,
    GateFailed,
    InputMismatch,
    Refused,
    Unreachable,
    UsageError,
)
from edgekit_runtime.measurement import Measurement
from edgekit_runtime.paths import sha256

REACH_S = 10.0  # time given to a connection, refusals included: an agent may be just starting
SILENCE_S = 30.0  # an agent that lives says so every second
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH, openssl/x509_vfy.h
_KINDS: dict[str, type[EdgekitError]] = {
    kind.kind: kind
    for kind in (UsageError, Refused, BundleInvalid, InputMismatch, EngineMissing, GateFailed, Unreachable)
}

Kind = TypeVar("Kind", bound=wire.Message)
Announce = Callable[[int, tuple[str, ...]], None]
Progress = Callable[[str], None]


def profile(
    where: Where, path: Path, request: Request, access: Access, *, announce: Announce, progress: Progress
) -> list[Measurement]:
    """Profiles a bundle or a bare graph on another device. See `dispatch.take`."""
    offer, files = offered(path)
    with _talk(where, access) as connection:
        connection.say(offer)
        need = _answer(connection, wire.Need)
        total = sum(file.bytes for file in offer.files if file.path in need.paths)
        if total:
            progress(f"{where.text}: sending {total / 1e6:.1f} MB")
        for name in need.paths:
            _send(connection, files, name)
        _answer(connection, wire.Stored)
        connection.say(wire.Start(content=need.content, request=request))
        return list(_wait(connection, wire.Done, announce, progress).measurements)


def calibrate(
    where: Where,
    access: Access,
    *,
    name: str,
    engines: tuple[str, ...],
    folder: Path,
    announce: Announce,
    progress: Progress,
) -> Path:
    """Lets a device measure itself, and writes its profile here.

    Args:
        where: The device; its agent.
        access: How the agent is entered.
        name: Of the profile; empty: the machine's id.
        engines: Engines to calibrate; none: all installed ones that can be.
        folder: Where the profile and its predictor are written.
        announce: As for `profile`.
        progress: As for `profile`.

    Returns:
        The profile's path.

    Raises:
        Unreachable: The agent cannot be reached, or was lost.
        Refused: What came is no profile.
    """
    from edgekit import devices

    with _talk(where, access) as connection:
        connection.say(wire.Calibrate(name=name, engines=engines))
        found = _wait(connection, wire.Calibrated, announce, progress)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", found.name):
        raise Refused(f"{where.text} sent a profile called {found.name!r}, which is no name for one")
    with tempfile.TemporaryDirectory() as name_:
        files = {f"{found.name}.predictor.json": found.predictor, f"{found.name}.toml": found.profile}
        for file, text in files.items():
            (Path(name_) / file).write_text(text, encoding="utf-8")
        devices.load(str(Path(name_) / f"{found.name}.toml"))  # refuses what is no profile
    return write_texts(folder, files, "the profile")[-1]


@contextmanager
def _talk(where: Where, access: Access) -> Iterator[Wire]:
    """A connection that has been greeted; losing it is told with how long it lasted."""
    start = time.monotonic()
    with reached(where, access) as connection:
        greeted = False
        try:
            _greet(connection, access.token if where.kind == "tcp" else "")
            greeted = True
            yield connection
        except Lost as error:
            seconds = time.monotonic() - start
            raise _gone(where, access, error, seconds, greeted=greeted) from error


def _gone(where: Where, access: Access, error: Lost, seconds: float, *, greeted: bool) -> Unreachable:
    """Why a connection ended, with the way out. TLS 1.3 tells of a client's certificate only after the handshake."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
        shown = f"does not take the certificate {access.cert}" if access.cert else "asks for a certificate of this side"
        return Unreachable(
            f"{where.text} {shown}: {cause.reason}",
            remedy="give --cert and --key of a certificate that the agent's --client-ca has signed (or is)",
        )
    message = f"{where.text} was lost after {seconds:.1f} s: {error}"
    remedy = "look whether the device and the agent still run, then try again (a bundle sent is there)"
    if not greeted and where.kind == "tcp" and access.ca is None:
        remedy = "if the agent there speaks TLS, give its certificate with --ca"
    elif not greeted and where.kind == "tcp":  # the alert is lost where the agent closes before it is read
        remedy = "if the agent runs with --client-ca, give --cert and --key of a certificate that it takes"
    return Unreachable(message, remedy=remedy)


def offered(path: Path) -> tuple[wire.Offer, dict[str, Path]]:
    """What is brought: every file that a bundle's manifest lists, or a bare graph with its weights.

    Returns:
        The offer, and each file's place by its path in the offer.

    Raises:
        Refused: The path cannot be read, or a file is not what the manifest says.
    """
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise Refused(f"{path} does not exist", remedy="a bundle, an .onnx or a .tflite file is needed")
        beside = path.with_name(path.name + ".data")
        files = {file.name: file for file in (path, beside) if file.is_file()}
        name, bare = path.stem, True
    else:
        bundle = open_bundle(path)
        names = ("manifest.json", *bundle.check_files())
        files = {name: bundle.root / name for name in names}
        name, bare = (path.name if path.is_dir() else f"{bundle.manifest.name}.edge"), False
    listed = tuple(
        wire.OfferedFile(path=name, bytes=place.stat().st_size, sha256=sha256(place)) for name, place in files.items()
    )
    return wire.Offer(name=name.lstrip(".") or "graph", bare=bare, files=listed), files


@contextmanager
def reached(where: Where, access: Access) -> Iterator[Wire]:
    """An open connection to an agent.

    Raises:
        Unreachable: Nobody answers there, or TLS fails; says how long it was tried.
    """
    if where.kind == "ssh":
        from edgekit.agent.over_ssh import started

        with started(where, access) as channel:
            yield Wire(channel, wire.MOST_ANSWER_BYTES)
        return
    connection = Wire(SocketChannel(_connected(where, access)), wire.MOST_ANSWER_BYTES)
    try:
        yield connection
    finally:
        connection.close()


def _connected(where: Where, access: Access) -> socket.socket:
    from edgekit.agent.server import LOOPBACK

    start = time.monotonic()
    context = None
    if access.ca is not None or where.host not in LOOPBACK:
        context = _tls(access)
    while True:
        try:
            left = max(1.0, REACH_S - (time.monotonic() - start))
            connected = socket.create_connection((where.host, where.port), timeout=left)
            return connected if context is None else _wrapped(context, connected, where.host)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{where.text} shows a certificate that is not trusted: {error.verify_message}",
                remedy=_untrusted(error, where.host),
            ) from error
        except (ConnectionRefusedError, ConnectionResetError, TimeoutError, OSError) as error:
            seconds = time.monotonic() - start
            final = isinstance(error, socket.gaierror | ssl.SSLError) or seconds >= REACH_S
            if final:
                raise Unreachable(
                    f"{where.text} could not be reached: tried for {seconds:.1f} s, {error}",
                    remedy="start `edgekit agent` there, and check address, port and firewall",
                ) from error
            time.sleep(min(0.5, max(0.0, REACH_S - seconds)))


def _untrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in _OTHER_NAME:
        return f"say the name that the certificate was made for, or make one with subjectAltName for {host}"
    return "give the agent's certificate, or the one that signed it, with --ca"


def _wrapped(context: ssl.SSLContext, connected: socket.socket, host: str) -> socket.socket:
    try:
        return context.wrap_socket(connected, server_hostname=host)
    except BaseException:
        connected.close()
        raise


def _tls(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(access.ca) if access.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.cert is not None:
            context.load_cert_chain(access.cert, access.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the certificates cannot be used: {error}",
            remedy="--ca, --cert and --key take PEM files; the key is that of --cert and has no password",
        ) from error
    return context


def _greet(connection: Wire, token: str) -> wire.Welcome:
    connection.say(wire.Hello(token=token))
    return _answer(connection, wire.Welcome)


def _send(connection: Wire, files: dict[str, Path], name: str) -> None:
    if name not in files:
        raise Refused(f"the agent asks for {name!r}, which was not offered")
    with files[name].open("rb") as file:
        while piece := file.read(wire.PIECE_BYTES):
            try:
                connection.send_piece(piece)
            except Lost:
                _refusal(connection)  # the agent may have said why before it hung up
                raise


def _refusal(connection: Wire) -> None:
    try:
        _raise(connection.hear(2.0))
    except Lost:
        return


def _answer(connection: Wire, kind: type[Kind]) -> Kind:
    message = connection.hear(SILENCE_S)
    _raise(message)
    if not isinstance(message, kind):
        raise Refused(f"the agent said {type(message).__name__}, {kind.__name__} was expected")
    return message


def _raise(message: wire.Said) -> None:
    if isinstance(message, wire.Failure):
        if message.kind == "busy":
            raise Unreachable(message.message, remedy=message.remedy)
        raise _KINDS.get(message.kind, Refused)(message.message, remedy=message.remedy)


def _wait(connection: Wire, last: type[Kind], announce: Announce, progress: Progress) -> Kind:
    while True:
        message = connection.hear(SILENCE_S)
        _raise(message)
        if isinstance(message, last):
            return message
        if isinstance(message, wire.Plan):
            announce(message.steps, message.remarks)
        elif isinstance(message, wire.Step):
            progress(message.label)
