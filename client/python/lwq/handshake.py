"""Why no connection comes about: a handshake of lwq's own, whose error says what to give where gRPC's does not."""
from __future__ import annotations

import dataclasses
import os
import socket
import ssl
from collections.abc import Callable

_SECONDS = 5.0
# How a client of HTTP/2 begins, with settings that change none.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
_CERTIFICATE_REQUEST = 13  # of TLS' handshake messages
_NAME_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NOT_VALID_NOW = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class TlsFiles:
    """PEM files: the authority of the server's certificate, and the caller's own certificate with its key."""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.ca or self.cert or self.key)


def complaint(server: str, files: TlsFiles) -> str:
    """What is wrong with TLS to the first of the server's addresses; "" where nothing is, or nobody takes connections there."""
    if server.startswith("unix:"):
        return ""
    host, _, port = server.split(",")[0].strip().removeprefix("dns:///").rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
            wrong = _over_tls(connection, host, files) if files else _in_clear(connection)
    except (OSError, ValueError):
        return ""
    return f"connecting with {host}:{port}: {wrong}" if wrong else ""


def _in_clear(connection: socket.socket) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as e:
        if "ALERT" not in (e.reason or ""):
            return ""
    # One that wants a certificate ends the handshake with an alert, which is TLS as well.
    return "it speaks TLS: give tls_ca"


def _over_tls(connection: socket.socket, host: str, files: TlsFiles) -> str:
    try:
        context = ssl.create_default_context(cafile=files.ca or None)
    except ssl.SSLError as e:
        return f"tls_ca {files.ca} holds no authority's certificate ({e.reason})"
    try:
        if files.cert and files.key:
            context.load_cert_chain(files.cert, files.key)
    except ssl.SSLError as e:
        return f"tls_cert {files.cert} and tls_key {files.key} cannot be used together ({e.reason})"
    context.set_alpn_protocols(["h2"])
    asked = _notices_request(context)
    try:
        with context.wrap_socket(connection, server_hostname=host) as channel:
            # Whether it takes this side's certificate a server of TLS 1.3 says after the handshake.
            try:
                channel.sendall(_GREETING)
                if channel.recv(1):
                    return ""
            except ConnectionError:
                pass
            return _refused_by_server(files) if asked() else ""
    except ssl.SSLCertVerificationError as e:
        return _not_taken(e, files)
    except ssl.SSLError as e:
        reason = e.reason or ""
        if "ALERT" in reason:
            return _refused_by_server(files) if asked() else ""
        if reason in ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"):
            return "it does not speak TLS: leave out tls_ca, tls_cert and tls_key"
    return ""


def _notices_request(context: ssl.SSLContext) -> Callable[[], bool]:
    """Whether the server has asked for this side's certificate by then: what it ends without having asked is no complaint of one."""
    seen: list[int] = []

    def on_message(connection: object, direction: str, version: object, content: object, kind: object, data: object) -> None:
        if direction == "read" and kind == _CERTIFICATE_REQUEST:
            seen.append(1)

    # Python has no public way to tell; where this one is gone nobody is told to give a certificate.
    if hasattr(context, "_msg_callback"):
        setattr(context, "_msg_callback", on_message)
    return lambda: bool(seen)


def _not_taken(error: ssl.SSLCertVerificationError, files: TlsFiles) -> str:
    if error.verify_code in _NAME_MISMATCH:
        return f"its certificate is for another name: {error.verify_message}"
    if error.verify_code in _NOT_VALID_NOW:
        return f"its certificate is not valid now ({error.verify_message}): the server needs a new one"
    by = f"not the one of tls_ca {files.ca}" if files.ca else "none that this machine trusts; give tls_ca"
    return f"the authority of its certificate is {by} ({error.verify_message})"


def _refused_by_server(files: TlsFiles) -> str:
    if not files.cert:
        return "it asks for a certificate: give tls_cert and tls_key"
    return f"it does not take tls_cert {files.cert}: give a certificate of its authority"
