"""The channel to the server, and calls that are tried again while it is away."""
from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import pathlib
import random
import re
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from lwq.errors import InvalidArgument, LwqError, NotFound, Unavailable, from_rpc, invalid
from lwq.handshake import TlsFiles, complaint

_log = logging.getLogger("lwq")
T = TypeVar("T")

_MAX_MESSAGE_BYTES = 4 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A dead peer is noticed within 40 s, a server that was restarted is found again within a second.
    ("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000), ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1_000), ("grpc.enable_http_proxy", 0),
    # Of several servers only the leader listens; this keeps trying to reach them all and calls whom it has reached.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
]
CALL_SECONDS = 30.0


def check_address(server: str) -> None:
    """By the rules of lwqctl. Raises InvalidArgument ADDRESS_INVALID."""
    def wrong(problem: str) -> InvalidArgument:
        return invalid("ADDRESS_INVALID", f'"{server}" is no server\'s address: {problem}; expected host:port, several with commas '
                       "between, or unix:/path")

    if server.startswith("unix:"):
        if server == "unix:":
            raise wrong("it has no path")
        return
    for one in server.split(","):
        host, colon, port = one.strip().removeprefix("dns:///").rpartition(":")
        if "://" in one.removeprefix("dns:///"):
            raise wrong('leave out what ends with "://"')
        if not colon:
            raise wrong("it has no :port")
        if not host or "/" in host or " " in host:
            raise wrong("it has no host before the port")
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
            raise wrong("the port is not from 1 to 65535")


def target(server: str) -> str:
    """gRPC's name of a server, or of several with commas between."""
    if "," not in server or server.startswith("unix:"):
        return server
    addresses = []
    for one in server.split(","):
        host, _, port = one.strip().removeprefix("dns:///").rpartition(":")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), socket.AF_INET, socket.SOCK_STREAM)
            addresses += [f"{address[0]}:{port}" for *_, address in found]
        except OSError as e:
            _log.warning("%s is left out of %s: %s", host, server, e)
    return "ipv4:" + ",".join(dict.fromkeys(addresses)) if addresses else server


def tls_files(given: TlsFiles) -> TlsFiles:
    """Those given; those of $LWQ_TLS_CA, $LWQ_TLS_CERT and $LWQ_TLS_KEY where none is."""
    return given or TlsFiles(*(os.environ.get(f"LWQ_TLS_{name}") for name in ("CA", "CERT", "KEY")))


def credentials_of(files: TlsFiles) -> grpc.ChannelCredentials | None:
    """None without files: no TLS."""
    if not files:
        return None
    contents = {}
    for name, path in (("tls_ca", files.ca), ("tls_cert", files.cert), ("tls_key", files.key)):
        try:
            contents[name] = pathlib.Path(path).read_bytes() if path else None
        except OSError as e:
            raise NotFound("NOT_FOUND", "FILE_NOT_FOUND", f"{name}: {path} cannot be read: {e.strerror}") from None
    if (contents["tls_cert"] is None) != (contents["tls_key"] is None):
        raise invalid("FLAG_INVALID", "tls_cert and tls_key go together: one of them is missing")
    return grpc.ssl_channel_credentials(contents["tls_ca"], contents["tls_key"], contents["tls_cert"])


class _FileToken(grpc.AuthMetadataPlugin):
    """Shows the token of a file with each call; reads it again when it changes, and goes on with the last while it cannot be read."""

    def __init__(self, path: str | os.PathLike[str]):
        self._path = pathlib.Path(path)
        self._seen = self._stamp()
        self._text = self._read()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            now = self._path.stat()
        except OSError:
            return None
        return now.st_mtime_ns, now.st_ino, now.st_size

    def _read(self) -> str:
        try:
            text = self._path.read_bytes()[:4096].decode("ascii", "replace").strip()
        except OSError as e:
            raise invalid("TOKEN_FILE_INVALID", f"token_file: {self._path} cannot be read: {e.strerror}") from None
        if not re.fullmatch(r"lwq_[a-z0-9]{1,63}_[A-Za-z0-9_-]{43}", text):
            raise invalid("TOKEN_FILE_INVALID", f"token_file: there is no token in {self._path}, or more than that")
        return text

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        stamp = self._stamp()
        if stamp is not None and stamp != self._seen:
            self._seen = stamp
            try:
                self._text = self._read()
            except InvalidArgument as e:
                _log.warning("going on with the last token: %s", e.message)
        callback((("authorization", f"Bearer {self._text}"),), None)


def with_token(credentials: grpc.ChannelCredentials | None, token_file: str | os.PathLike[str] | None,
               server: str) -> grpc.ChannelCredentials | None:
    """The credentials with the token of a file, or of $LWQ_TOKEN_FILE; as they are where neither is given. A token is shown over TLS
    and on Unix sockets alone: elsewhere InvalidArgument TOKEN_IN_CLEAR."""
    token_file = token_file or os.environ.get("LWQ_TOKEN_FILE")
    if not token_file:
        return credentials
    if credentials is None:
        if not server.startswith("unix:"):
            raise invalid("TOKEN_IN_CLEAR", f"showing a token to {server}: the connection would not be encrypted; give tls_ca")
        credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    return grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(_FileToken(token_file)))


def make_channel(server: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    check_address(server)
    if credentials is None:
        return grpc.aio.insecure_channel(target(server), options=_OPTIONS)
    options: list[tuple[str, Any]] = list(_OPTIONS)
    if "," in server:  # of a list gRPC knows addresses alone; the certificates name the first of them
        options.append(("grpc.ssl_target_name_override", server.split(",")[0].strip().rpartition(":")[0]))
    return grpc.aio.secure_channel(target(server), credentials, options=options)


@dataclasses.dataclass
class Server:
    """Whom a client calls, and whether it has ever answered."""
    address: str
    files: TlsFiles
    own_credentials: bool = False  # the caller's, of which nothing is known here
    reached: bool = False

    async def check(self, error: LwqError) -> None:
        """Raises InvalidArgument TLS_INVALID where the error is one of TLS and the server was never reached."""
        if self.reached or self.own_credentials or not isinstance(error, Unavailable):
            return
        wrong = await asyncio.to_thread(complaint, self.address, self.files)
        if wrong:
            raise invalid("TLS_INVALID", wrong) from error


class Patience:
    """How long calls are tried again: `seconds` since the first failure after the last sign of life."""

    def __init__(self, seconds: float, server: Server):
        self._seconds = seconds
        self._server = server
        self._end: float | None = None
        self._pause = 0.1

    def answered(self) -> None:
        """A call went through. It may be one of a transfer that gets nowhere: that is for sign_of_life()."""
        self._server.reached = True

    def sign_of_life(self) -> None:
        self.answered()
        self._end = None
        self._pause = 0.1

    async def after(self, error: LwqError) -> None:
        """Returns when the call may be tried again, after growing pauses; else raises the error."""
        if not isinstance(error, Unavailable) and error.code != "ABORTED":
            raise error
        now = time.monotonic()
        first = self._end is None
        self._end = now + self._seconds if self._end is None else self._end
        if now + self._pause > self._end:
            raise make_unavailable(self._server.address, self._seconds, error) from error
        if first:
            await self._server.check(error)
            _log.warning("no answer from the server at %s; trying again for %g s: %s", self._server.address, self._seconds, error.message)
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(2 * self._pause, 5.0)


def make_unavailable(server: str, seconds: float, error: LwqError) -> LwqError:
    if error.code == "ABORTED":
        return error
    return Unavailable(error.code, error.reason, f"no answer from the server at {server} for {seconds:g} s: {error.message}")


async def call(method: Callable[..., Any], request: object, answer: type[T], patience: Patience) -> T:
    """The answer, of that type, of a unary call that may be made twice."""
    while True:
        try:
            found: T = await method(request, timeout=CALL_SECONDS)
            patience.answered()
            return found
        except grpc.aio.AioRpcError as e:
            await patience.after(from_rpc(e))
