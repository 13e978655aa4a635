"""Certificates and keys are looked at before gRPC takes them: what it says of a wrong one, it says to its own log."""

from __future__ import annotations

import ssl
from pathlib import Path

from edgekit_runtime.errors import UsageError


def check_pair(cert: Path, key: Path, names: tuple[str, str]) -> None:
    """Refuses a certificate and a key that cannot be used, or do not belong together.

    Args:
        cert: PEM, the certificate (and those it hangs on).
        key: PEM, its private key, not encrypted.
        names: What the two are called where they were given.

    Raises:
        UsageError: One of them cannot be read, is no PEM file, or is another's.
    """
    try:
        # An encrypted key would ask the terminal for its password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            told = f"{names[1]} {key} is not the key of {names[0]} {cert}"
        else:
            told = f"{names[0]} {cert} and {names[1]} {key} are no certificate and key ({error.reason or error})"
        raise UsageError(told, remedy="a PEM certificate and its own key, not encrypted") from error
    except OSError as error:
        # Which of the two it is, the error does not say.
        missing = next((path for path in (cert, key) if not Path(path).is_file()), cert)
        raise UsageError(f"{missing} cannot be read: {error.strerror}", remedy="name a PEM file") from error


def check_authority(ca: Path, name: str) -> None:
    """Refuses what is no certificate of an authority.

    Args:
        ca: PEM, one certificate or many.
        name: What it is called where it was given.

    Raises:
        UsageError: It cannot be read or holds no certificate.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except ssl.SSLError as error:
        raise UsageError(f"{name} {ca} is no PEM file of certificates", remedy="it begins with -----BEGIN") from error
    except OSError as error:
        raise UsageError(f"{ca} cannot be read: {error.strerror}", remedy="name a PEM file") from error
