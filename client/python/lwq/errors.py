"""What goes wrong, as exceptions. Each has a stable `reason` such as BUDGET_INFEASIBLE to branch on, and a message for people."""
from __future__ import annotations

from typing import Any

import grpc

from lwq.types import Failure, Job, Model


class LwqError(Exception):
    """`code` is the name of the gRPC code, `reason` a line of base/failure.def."""

    def __init__(self, code: str, reason: str, message: str):
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message


class InvalidArgument(LwqError):
    """The request is wrong whatever the state of the service."""


class NotFound(LwqError):
    """There is no such thing, or no such file."""


class AlreadyExists(LwqError):
    """The name is taken, or the output is."""


class FailedPrecondition(LwqError):
    """The request does not fit how things stand."""


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
}


class JobFailed(LwqError):
    """A job ended in FAILED. `job` is the whole of it, `failure` says why."""

    def __init__(self, job: Job):
        super().__init__(*_words(job.failure, f"{job.name} failed"))
        self.job = job
        self.failure: Failure = job.failure


class JobCancelled(LwqError):
    """A job that was waited for was cancelled."""

    def __init__(self, job: Job):
        super().__init__("CANCELLED", "CANCELLED", f"{job.name} was cancelled")
        self.job = job


class ModelRejected(LwqError):
    """A model cannot be used. `failure` says why."""

    def __init__(self, model: Model):
        super().__init__(*_words(model.failure, f"{model.name} was rejected"))
        self.model = model
        self.failure: Failure = model.failure


def _words(failure: Failure, what: str) -> tuple[str, str, str]:
    code = next((c.name for c in grpc.StatusCode if c.value[0] == failure.code), "UNKNOWN")
    return code, failure.reason or code, f"{what}: {failure.message}"


def make_error(code: str, reason: str, message: str) -> LwqError:
    return _BY_CODE.get(code, LwqError)(code, reason, message)


def from_rpc(error: grpc.aio.AioRpcError) -> LwqError:
    """The reason travels in the trailer "lwq-reason"."""
    code = error.code()
    # A server that stops ends its calls so. This side's own cancellation is no AioRpcError.
    name = "UNAVAILABLE" if code is grpc.StatusCode.CANCELLED else code.name
    trailer: Any = error.trailing_metadata() or ()
    reason = next((value for key, value in trailer if key == "lwq-reason"), name)
    return make_error(name, str(reason), error.details() or "")
