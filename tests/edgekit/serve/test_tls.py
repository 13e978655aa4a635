"""TLS and mutual TLS with certificates made for the test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

from edgekit.serve.server import Options, check
from edgekit_runtime.errors import Unreachable, UsageError
from edgekit_runtime.remote.client import Client, Credentials

X = np.arange(8, dtype=np.float32).reshape(2, 4)

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def pems(tmp_path_factory) -> Path:
    """An authority, a server's and a client's certificate of it, and a stranger's."""
    folder = tmp_path_factory.mktemp("pems")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "stranger"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "csr")
        openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "san", "-out", f"{name}.pem")  # fmt: skip
    return folder


def asked(address: str, **files: Path | None) -> np.ndarray:
    client = Client(f"grpcs://{address}", Credentials(**files))  # type: ignore[arg-type]
    try:
        return client.call("tiny", {"x": X}, timeout_s=5).tensors["y"]
    finally:
        client.close()


def test_a_server_is_trusted_by_its_certificate(start, bundle, pems) -> None:
    with start((bundle,), cert=pems / "server.pem", key=pems / "server.key") as (address, _):
        assert asked(address, ca=pems / "ca.pem").shape == (2, 3)
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            asked(address, ca=pems / "stranger.pem")
        with pytest.raises(Unreachable, match="closed the connection at once") as plain:
            Client(f"grpc://{address}").ping()
        assert "grpcs://" in plain.value.remedy


def test_a_certificate_for_another_host_is_told_as_such(start, bundle, pems) -> None:
    with (
        start((bundle,), cert=pems / "stranger.pem", key=pems / "stranger.key") as (address, _),
        pytest.raises(Unreachable, match="certificate is for another host"),
    ):
        asked(address, ca=pems / "stranger.pem")


def test_clients_without_a_certificate_of_the_authority_stay_outside(start, bundle, pems) -> None:
    options = {"cert": pems / "server.pem", "key": pems / "server.key", "client_ca": pems / "ca.pem"}
    with start((bundle,), **options) as (address, _):
        own = {"cert": pems / "client.pem", "key": pems / "client.key"}
        assert asked(address, ca=pems / "ca.pem", **own).shape == (2, 3)
        with pytest.raises(Unreachable, match="closed the connection at once"):
            asked(address, ca=pems / "ca.pem")
        with pytest.raises(Unreachable):
            asked(address, ca=pems / "ca.pem", cert=pems / "stranger.pem", key=pems / "stranger.key")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"cert": "client.pem", "key": "stranger.key"}, "stranger.key is not the key of"),
        ({"cert": "san", "key": "client.key"}, "are no certificate and key"),
        ({"cert": "client.pem", "key": "none.key"}, "none.key cannot be read"),
        ({"ca": "san"}, "is no PEM file of certificates"),
        ({"ca": "none.pem"}, "none.pem cannot be read"),
        ({"cert": "client.pem"}, "needs its key"),
    ],
)
def test_files_that_cannot_be_used_are_refused_on_both_sides_before_anything_is_opened(pems, files, told) -> None:
    paths = {name: pems / file for name, file in files.items()}
    with pytest.raises(UsageError, match=told):
        Client("grpcs://127.0.0.1:1", Credentials(**paths))
    served = {"client_ca" if name == "ca" else name: path for name, path in paths.items()}
    if "ca" in paths:
        served |= {"cert": pems / "server.pem", "key": pems / "server.key"}
    with pytest.raises(UsageError, match=told):
        check(Options(bundles=(), **served))
