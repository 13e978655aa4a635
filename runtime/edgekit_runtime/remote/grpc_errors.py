"""What an error of gRPC means here."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import Refused, Unreachable

RETRY_AFTER = "retry-after-ms"


class Late(Refused):
    """The server had no time for it: overloaded, or the deadline has passed. Not its fault and not ours."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message, remedy="the local answer serves; the server is left alone for a while")
        self.retry_after_s = retry_after_s


def translated(error: Any) -> Exception:
    """What an error of gRPC means here."""
    grpc = grpc_package()
    code, details = error.code(), (error.details() or "")[:500]
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        trailing = {row.key: row.value for row in error.trailing_metadata() or ()}
        after = trailing.get(RETRY_AFTER)
        return Late(f"the server is overloaded: {details}", float(after) / 1e3 if after and after.isdigit() else None)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Late(f"the deadline has passed: {details}", None)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Refused(f"the server does not let us in: {details}", remedy="check token=, cert= and key=")
    if code is grpc.StatusCode.NOT_FOUND:
        return Refused(f"the server does not hold it: {details}", remedy="edgekit serve BUNDLE on the server")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
        return Refused(f"the server refuses the request: {details}", remedy="look at its tensors and parameters")
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return Unreachable("the server's certificate is not trusted", remedy="ca=: the certificate that signed it")
    if "Hostname Verification Check failed" in details or "not allowed by SAN" in details:
        return Unreachable(
            f"the server's certificate is for another host: {details}", remedy="ask for it by a name it holds"
        )
    if "failed to connect" in details and "Socket closed" in details:
        return Unreachable(
            "the server gave no answer (unavailable): it closed the connection at once",
            remedy="where it speaks TLS, grpcs://; where it wants a client's certificate, one of its authority",
        )
    return Unreachable(
        f"the server gave no answer ({code.name.lower()}): {details}",
        remedy="is it running, and can its port be reached from here?",
    )


def grpc_package() -> Any:
    """gRPC, imported when a server is named.

    Raises:
        Refused: It is not installed.
    """
    try:
        import grpc
    except ModuleNotFoundError as error:
        raise Refused("a server needs gRPC", remedy="pip install 'edgekit[remote]'") from error
    return grpc
