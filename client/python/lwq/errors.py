"""What goes wrong, as exceptions. Each has a stable `reason` such as BUDGET_INFEASIBLE to branch on, and a message for people."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from lwq.types import Failure, Job, Model

_DOMAIN = "lwq.dev"  # of the service's reasons (base/rpc/grpc_status.h)


class LwqError(Exception):
    """`code` is the name of the gRPC code, `reason` a line of base/failure.def. `facts` are for programs, such as
    smallest_bytes of BUDGET_INFEASIBLE; `fields` says what is wrong with which field of the request."""

    def __init__(self, code: str, reason: str, message: str, facts: Mapping[str, str] | None = None,
                 fields: Mapping[str, str] | None = None):
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.facts = dict(facts or {})
        self.fields = dict(fields or {})

    def __reduce__(self) -> tuple[Any, ...]:  # for other processes
        return type(self), (self.code, self.reason, self.message, self.facts, self.fields)


class InvalidArgument(LwqError):
    """The request is wrong whatever the state of the service."""


class NotFound(LwqError):
    """There is no such thing, or no such file."""


class AlreadyExists(LwqError):
    """The name is taken, or the output is."""


class FailedPrecondition(LwqError):
    """The request does not fit how things stand."""


class PermissionDenied(LwqError):
    """The server does not let this caller do that, or does not know who it is."""


class Unsupported(LwqError):
    """This server, or its build, cannot do that."""


class Timeout(LwqError, TimeoutError):
    """A wait took longer than its caller gave it. What was waited for goes on."""

    def __init__(self, message: str):
        super().__init__("DEADLINE_EXCEEDED", "TIMEOUT", message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message,)


class ResourceExhausted(LwqError):
    """Memory, space or a quota does not suffice."""


class Unavailable(LwqError):
    """No server answered for as long as the client tries again."""


class DataLoss(LwqError):
    """Bytes are not what they should be."""


class InternalError(LwqError):
    """A fault of lwq."""


_BY_CODE: dict[str, type[LwqError]] = {
    "INVALID_ARGUMENT": InvalidArgument, "OUT_OF_RANGE": InvalidArgument, "NOT_FOUND": NotFound, "ALREADY_EXISTS": AlreadyExists,
    "FAILED_PRECONDITION": FailedPrecondition, "RESOURCE_EXHAUSTED": ResourceExhausted, "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable, "DATA_LOSS": DataLoss, "INTERNAL": InternalError, "UNKNOWN": InternalError,
    "PERMISSION_DENIED": PermissionDenied, "UNAUTHENTICATED": PermissionDenied, "UNIMPLEMENTED": Unsupported,
}


class JobFailed(LwqError):
    """A job ended in FAILED. `job` is the whole of it, `failure` says why."""

    def __init__(self, job: Job):
        super().__init__(*_words(job.failure, f"{job.name} failed"))
        self.job = job
        self.failure: Failure = job.failure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.job,)


class JobCancelled(LwqError):
    """A job that was waited for was cancelled."""

    def __init__(self, job: Job):
        super().__init__("CANCELLED", "CANCELLED", f"{job.name} was cancelled")
        self.job = job

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.job,)


class ModelRejected(LwqError):
    """A model cannot be used. `failure` says why."""

    def __init__(self, model: Model):
        super().__init__(*_words(model.failure, f"{model.name} was rejected"))
        self.model = model
        self.failure: Failure = model.failure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model,)


def _words(failure: Failure, what: str) -> tuple[str, str, str]:
    code = next((c.name for c in grpc.StatusCode if c.value[0] == failure.code), "UNKNOWN")
    return code, failure.reason or code, f"{what}: {failure.message}"


def invalid(reason: str, message: str) -> InvalidArgument:
    """What this side refuses."""
    return InvalidArgument("INVALID_ARGUMENT", reason, message)


def from_rpc(error: grpc.aio.AioRpcError) -> LwqError:
    """With what the trailer "grpc-status-details-bin" says as google.rpc.Status."""
    code = error.code()
    # A server that stops ends its calls so. This side's own cancellation is no AioRpcError.
    name = "UNAVAILABLE" if code is grpc.StatusCode.CANCELLED else code.name
    metadata: Any = error.trailing_metadata() or ()
    trailer: dict[str, Any] = {str(key): value for key, value in metadata}
    reason, facts, fields = _details(trailer.get("grpc-status-details-bin", b""))
    reason = reason or str(trailer.get("lwq-reason", name))
    return _BY_CODE.get(name, LwqError)(name, reason, error.details() or "", facts, fields)


def _details(trailer: bytes) -> tuple[str, dict[str, str], dict[str, str]]:
    """(reason, facts, fields); empty where the trailer is another's."""
    reason = ""
    facts: dict[str, str] = {}
    fields: dict[str, str] = {}
    status, info, bad = status_pb2.Status(), error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    try:
        status.ParseFromString(trailer)
        for detail in status.details:
            if detail.Unpack(info) and info.domain == _DOMAIN:
                reason, facts = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                fields = {violation.field: violation.description for violation in bad.field_violations}
    except DecodeError:
        pass
    return reason, facts, fields
