from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from agent_fixtures import TOKEN, certificate, until

import edgekit
from edgekit.agent import client, server, store, wire
from edgekit.agent.channels import SocketChannel
from edgekit.agent.server import Agent, Settings
from edgekit.agent.wire import Hello, Lost, Offer, OfferedFile, Start, Wire
from edgekit.profiler.dispatch import take
from edgekit.profiler.request import Request
from edgekit.profiler.where import Access, parse
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgekitError, Refused, Unreachable, UsageError
from edgekit_runtime.machine import this_machine

pytest.importorskip("onnxruntime")
SHORT = Request(duration_s=0.05)
OPEN = Access(token=TOKEN)


def at(agent: Agent) -> str:
    return f"tcp://localhost:{agent.port}"


def welcomed(agent: Agent, access: Access = OPEN) -> wire.Welcome:
    """As far as the greeting: whether the agent lets a workstation in, and is free."""
    assert not agent.sessions._busy.locked()
    with client.reached(parse(at(agent)), access) as connection:
        return client._greet(connection, access.token)


def measured(agent: Agent, path: Path, access: Access = OPEN, request: Request = SHORT, **hooks):
    return take(parse(at(agent)), path, request, access, **hooks)


def test_a_bundle_is_profiled_there_travels_once_and_keeps_its_documents_here(run_agent, bundle: Path):
    agent = run_agent()
    labels: list[str] = []
    steps: list[int] = []
    (found,) = measured(agent, bundle, progress=labels.append, announce=lambda count, remarks: steps.append(count))
    assert found.latency_ms.p50 is not None and found.device == this_machine().id
    assert steps == [4]
    assert "sending" in labels[0] and len(labels) == 5
    assert open_bundle(bundle).measurements() == (found,)
    with connected(agent) as wired:  # a second time nothing has to be sent
        wired.say(client.offered(bundle)[0])
        need = wired.hear(5)
        assert isinstance(need, wire.Need) and need.paths == ()
        assert isinstance(wired.hear(5), wire.Stored)


def test_the_api_takes_an_agents_address_and_a_bare_graph(run_agent, bundle: Path):
    graph = next((bundle / "graphs").glob("*.onnx"))
    (found,) = edgekit.profile(graph, at(run_agent()), duration_s=0.05, access=OPEN)
    assert found.bundle_id == "" and found.latency_ms.n > 0 and found.ops


def test_errors_of_the_device_arrive_as_what_they_are(run_agent, bundle: Path):
    agent = run_agent()
    with pytest.raises(UsageError, match=r"no graph 'onnx\.int4'"):
        measured(agent, bundle, request=Request(graph="onnx.int4"))
    broken = bundle.parent / "broken.onnx"
    broken.write_bytes(b"not a graph")
    with pytest.raises(Refused, match=r"broken\.onnx"):
        measured(agent, broken)
    assert welcomed(agent)  # still usable


def test_a_wrong_token_opens_nothing(run_agent, bundle: Path):
    agent = run_agent()
    for token in ("", "a-token-of-this-tesT", TOKEN + "x"):
        with pytest.raises(Refused, match="token"):
            measured(agent, bundle, Access(token=token))
    assert welcomed(agent).edgekit == edgekit.__version__


def test_tls_with_a_token_and_with_certificates_of_both_sides(run_agent, bundle: Path, tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates for the test")
    cert, key = certificate(tmp_path, "agent")
    mine, my_key = certificate(tmp_path, "workstation")
    assert welcomed(run_agent(cert=cert, key=key), Access(token=TOKEN, ca=cert))
    mutual = run_agent(cert=cert, key=key, client_ca=mine, token="")
    assert welcomed(mutual, Access(ca=cert, cert=mine, key=my_key))
    with pytest.raises((Unreachable, Lost)):
        welcomed(mutual, Access(ca=cert))
    with pytest.raises(Unreachable, match="not trusted"):
        welcomed(mutual, Access(ca=mine, cert=mine, key=my_key))
    other, its_key = certificate(tmp_path, "other")
    for access in (Access(ca=cert), Access(ca=cert, cert=other, key=its_key)):
        with pytest.raises(Unreachable) as caught:
            measured(mutual, bundle, access)
        assert "--cert and --key" in caught.value.remedy
    with pytest.raises(Unreachable) as caught:
        measured(run_agent(cert=cert, key=key), bundle, Access(token=TOKEN))
    assert "--ca" in caught.value.remedy


@pytest.mark.parametrize(
    ("cert", "said"), [(None, "asks for a certificate"), (Path("my.pem"), "does not take .*my.pem")]
)
def test_an_alert_over_a_certificate_is_told_as_that(cert: Path | None, said: str):
    alert = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    alert.reason = "TLSV1_ALERT_UNKNOWN_CA"
    lost = Lost("over")
    lost.__cause__ = alert
    told = client._gone(parse("tcp://board:1"), Access(ca=Path("ca.pem"), cert=cert), lost, 0.1, greeted=False)
    assert re.search(said, told.message) and "--client-ca" in told.remedy


def test_a_certificate_of_another_name_is_not_blamed_on_the_authority(run_agent, bundle: Path, tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates for the test")
    cert, key = certificate(tmp_path, "agent", names="DNS:board")
    with pytest.raises(Unreachable, match="not trusted") as caught:
        measured(run_agent(cert=cert, key=key), bundle, Access(token=TOKEN, ca=cert))
    assert "subjectAltName for localhost" in caught.value.remedy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(host="0.0.0.0", token=TOKEN), "TLS only"),
        (Settings(host="192.168.1.7", token=TOKEN), "TLS only"),
        (Settings(), "token or certificates"),
        (Settings(token=TOKEN, client_ca=Path("ca.pem")), "belong together"),
        (Settings(token=TOKEN, cert=Path("c.pem")), "belong together"),
        (Settings(token=TOKEN, cert=Path("no.pem"), key=Path("no.key")), "cannot be used"),
    ],
)
def test_an_agent_that_would_open_its_machine_does_not_start(settings: Settings, words: str, tmp_path: Path):
    with pytest.raises(UsageError, match=words):
        Agent(settings, tmp_path)


def test_nobody_there_is_said_with_how_long_it_was_tried(bundle: Path, monkeypatch):
    monkeypatch.setattr(client, "REACH_S", 0.4)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        with pytest.raises(Unreachable, match=r"could not be reached: tried for 0\.\d s"):
            take(parse(f"tcp://127.0.0.1:{taken.getsockname()[1]}"), bundle, SHORT, OPEN)


def test_a_name_that_does_not_exist_is_not_tried_for_long(bundle: Path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(Unreachable, match=r"tried for 0\.0 s.*not known"):
        take(parse("tcp://localhost:1"), bundle, SHORT, OPEN)


@contextlib.contextmanager
def connected(agent: Agent, token: str = TOKEN) -> Iterator[Wire]:
    wired = Wire(SocketChannel(socket.create_connection(("127.0.0.1", agent.port), timeout=5)))
    try:
        wired.say(Hello(token=token))
        assert isinstance(wired.hear(5), wire.Welcome)
        yield wired
    finally:
        wired.close()


@pytest.mark.parametrize(
    "files",
    [
        [OfferedFile(path="../evil", bytes=1, sha256="0" * 64)],
        [OfferedFile(path="/etc/passwd", bytes=1, sha256="0" * 64)],
        [OfferedFile(path="a/../../b", bytes=1, sha256="0" * 64)],
        [OfferedFile(path="a\\b", bytes=1, sha256="0" * 64)],
        [OfferedFile(path="a", bytes=1, sha256="0" * 64)] * 2,
        [OfferedFile(path="a", bytes=-5, sha256="0" * 64)],
        [OfferedFile(path="a", bytes=10**12, sha256="0" * 64)],
        [],
    ],
)
def test_an_offer_that_leaves_the_folder_or_is_too_much_is_refused(run_agent, files, tmp_path: Path):
    agent = run_agent()
    with connected(agent) as wired:
        wired.say(Offer(name="x.edge", bare=False, files=tuple(files)))
        assert isinstance(wired.hear(5), wire.Failure)
    assert not list(tmp_path.rglob("evil")) and not list(tmp_path.rglob("passwd"))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", ""])
def test_a_content_has_a_plain_name(name: str):
    with pytest.raises(EdgekitError):
        store.check(Offer(name=name, bare=False, files=(OfferedFile(path="a", bytes=1, sha256="0"),)), 100)


def test_a_bare_offer_brings_a_graph_and_nothing_else():
    def offer(*names: str) -> Offer:
        files = tuple(OfferedFile(path=name, bytes=1, sha256="0") for name in names)
        return Offer(name="net", bare=True, files=files)

    store.check(offer("net.onnx", "net.onnx.data"), 100)
    for names in (("net.py",), ("a/net.onnx",), ("a.onnx", "b.onnx", "c.onnx")):
        with pytest.raises(Refused, match="bare graph"):
            store.check(offer(*names), 100)


def test_bytes_that_are_not_what_was_offered_are_not_kept(run_agent, tmp_path: Path):
    agent = run_agent()
    file = OfferedFile(path="manifest.json", bytes=4, sha256="0" * 64)
    with connected(agent) as wired:
        wired.say(Offer(name="x.edge", bare=False, files=(file,)))
        assert isinstance(wired.hear(5), wire.Need)
        wired.send_piece(b"four")
        answer = wired.hear(5)
    assert isinstance(answer, wire.Failure) and "hash" in answer.message
    assert not list(tmp_path.rglob("manifest.json")) and not list(tmp_path.rglob(".part-*"))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">Ic", 1 << 30, b"J"),  # a frame of a gigabyte
        struct.pack(">Ic", 5, b"J") + b"nojso",
        struct.pack(">Ic", 2, b"D") + b"xx",
        struct.pack(">Ic", 14, b"J") + b'{"say":"evil"}',
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x00",
    ],
)
def test_noise_ends_its_own_connection_only(run_agent, bundle: Path, data: bytes):
    agent = run_agent()
    with socket.create_connection(("127.0.0.1", agent.port), timeout=5) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        raw.settimeout(15)
        while raw.recv(65536):
            pass
    assert welcomed(agent)


def test_messages_name_no_program_and_take_no_unknown_key():
    for text in (b'{"say":"start","content":"a","request":{"exec":"sh"}}', b'{"say":"hello","x":1}'):
        with pytest.raises(msgspec.ValidationError):
            wire.decode(text)


def test_a_profile_before_an_offer_is_refused(run_agent):
    with connected(run_agent()) as wired:
        wired.say(Start(content="0" * 64, request=SHORT))
        answer = wired.hear(5)
    assert isinstance(answer, wire.Failure) and "offer it first" in answer.remedy


def test_a_full_disk_is_said_and_the_agent_stays_usable(run_agent, bundle: Path, monkeypatch):
    agent = run_agent()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(Refused, match="disk has too little room"):
        measured(agent, bundle)
    monkeypatch.undo()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(Refused, match="disk is full"):
        measured(agent, bundle)
    monkeypatch.undo()
    assert welcomed(agent)


def workers_of(agent: Agent) -> list[psutil.Process]:
    job = agent.sessions._job
    return psutil.Process(job.pid).children(recursive=True) if job else []


def test_a_killed_engine_is_a_clear_error_and_the_agent_stays_usable(run_agent, bundle: Path):
    agent = run_agent()

    def kill() -> None:
        until(lambda: workers_of(agent))
        for worker in workers_of(agent):
            worker.kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(Refused, match="SIGKILL"):
        measured(agent, bundle, request=Request(duration_s=3.0))
    assert welcomed(agent)


def test_a_job_that_dies_is_a_clear_error(run_agent, bundle: Path):
    agent = run_agent()

    def kill() -> None:
        until(lambda: agent.sessions._job)
        os.kill(agent.sessions._job.pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(Refused, match=r"process that measured on the device was killed by SIGKILL"):
        measured(agent, bundle, request=Request(duration_s=3.0))
    assert welcomed(agent)


def test_a_workstation_that_goes_ends_its_job_and_everything_below(run_agent, bundle: Path, monkeypatch):
    monkeypatch.setattr(server, "_ALIVE_S", 0.2)
    agent = run_agent()
    offer, files = client.offered(bundle)
    with connected(agent) as wired:
        wired.say(offer)
        need = wired.hear(5)
        for name in need.paths:
            wired.send_piece(files[name].read_bytes())
        wired.hear(5)
        wired.say(Start(content=need.content, request=Request(duration_s=30.0)))
        until(lambda: workers_of(agent))
        below = workers_of(agent)
    until(lambda: agent.sessions._job is None and not any(worker.is_running() for worker in below))
    assert welcomed(agent)


def test_an_agent_that_goes_is_said_with_how_long_it_lived(run_agent, bundle: Path):
    agent = run_agent()

    def go() -> None:
        until(lambda: workers_of(agent))
        agent.close()

    threading.Thread(target=go, daemon=True).start()
    with pytest.raises(EdgekitError) as caught:
        measured(agent, bundle, request=Request(duration_s=5.0))
    assert isinstance(caught.value, (Unreachable, Refused))


def test_two_workstations_do_not_measure_at_once(run_agent, bundle: Path):
    agent = run_agent()
    assert agent.sessions._busy.acquire()
    try:
        with pytest.raises(Unreachable, match="somebody else"):
            measured(agent, bundle)
    finally:
        agent.sessions._busy.release()
    assert welcomed(agent)


def test_the_job_has_limits_and_no_secrets(run_agent, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    order = server.Order(path=str(tmp_path / "none.onnx"), request=SHORT, cpu_s=60)
    job = server.start_job(order, tmp_path)
    try:
        environment = Path(f"/proc/{job.pid}/environ")
        if environment.exists():
            until(lambda: environment.read_bytes())
            assert b"SECRET_TOKEN" not in environment.read_bytes()
        assert job.stdout is not None
        answer = wire.decode(job.stdout.readline())
        assert isinstance(answer, wire.Failure) and "does not exist" in answer.message
    finally:
        server.end(job)


def test_a_silent_agent_counts_as_lost():
    left, right = socket.socketpair()
    with right, pytest.raises(Lost):
        Wire(SocketChannel(left)).hear(0.1)
    left.close()
