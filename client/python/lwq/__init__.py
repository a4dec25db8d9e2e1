"""Client of lwq, the service that quantizes language models to a memory budget."""
from lwq import aio, types
from lwq.budget import parse_budget, parse_bytes
from lwq.client import Client
from lwq.errors import (AlreadyExists, DataLoss, FailedPrecondition, InternalError, InvalidArgument, JobCancelled, JobFailed, LwqError,
                        ModelRejected, NotFound, PermissionDenied, ResourceExhausted, Timeout, Unavailable, Unsupported)

__all__ = ["AlreadyExists", "Client", "DataLoss", "FailedPrecondition", "InternalError", "InvalidArgument", "JobCancelled",
           "JobFailed", "LwqError", "ModelRejected", "NotFound", "PermissionDenied", "ResourceExhausted", "Timeout", "Unavailable",
           "Unsupported", "aio", "parse_budget", "parse_bytes", "types"]
