"""The channel to the server, and calls that are tried again while it is away."""
from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from lwq.errors import LwqError, Unavailable, from_rpc

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


def target(server: str) -> str:
    """gRPC's name of a server, or of several with commas between."""
    if "," not in server:
        return server
    addresses = []
    for one in server.split(","):
        host, _, port = one.strip().rpartition(":")
        try:
            addresses.append(f"{socket.gethostbyname(host)}:{port}")
        except OSError:
            continue
    return "ipv4:" + ",".join(addresses) if addresses else server


def make_channel(server: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(target(server), options=_OPTIONS)
    return grpc.aio.secure_channel(target(server), credentials, options=_OPTIONS)


class Patience:
    """How long calls are tried again: `seconds` since the first failure after the last sign of life."""

    def __init__(self, seconds: float, server: str):
        self._seconds = seconds
        self._server = server
        self.sign_of_life()

    def sign_of_life(self) -> None:
        self._end: float | None = None
        self._pause = 0.1

    async def after(self, error: LwqError) -> None:
        """Returns when the call may be tried again, after growing pauses; else raises the error."""
        if not isinstance(error, Unavailable) and error.code != "ABORTED":
            raise error
        now = time.monotonic()
        if self._end is None:
            self._end = now + self._seconds
        if now + self._pause > self._end:
            raise make_unavailable(self._server, self._seconds, error) from error
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(2 * self._pause, 5.0)


def make_unavailable(server: str, seconds: float, error: LwqError) -> LwqError:
    if error.code == "ABORTED":
        return error
    return Unavailable(error.code, error.reason, f"no answer from the server at {server} for {seconds:g} s: {error.message}")


async def call(method: Callable[..., Any], request: Any, patience: Patience) -> Any:
    """The answer of a unary call that may be made twice."""
    while True:
        try:
            return await method(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as e:
            await patience.after(from_rpc(e))
