"""The messages that the client takes and gives; proto/lwq/v1 documents their fields."""
from lwq._proto.v1.admin_service_pb2 import ServerInfo, Worker
from lwq._proto.v1.blob_pb2 import BlobRef, NamedBlob
from lwq._proto.v1.event_pb2 import JobEvent, TaskEvent
from lwq._proto.v1.failure_pb2 import Failure
from lwq._proto.v1.job_pb2 import Artifact, Budget, Dataset, EvaluationResult, Job, PlanSummary, Progress, QuantizeSpec
from lwq._proto.v1.job_service_pb2 import PlanJobResponse
from lwq._proto.v1.model_pb2 import Model

__all__ = ["Artifact", "BlobRef", "Budget", "Dataset", "EvaluationResult", "Failure", "Job", "JobEvent", "Model", "NamedBlob",
           "PlanJobResponse", "PlanSummary", "Progress", "QuantizeSpec", "ServerInfo", "TaskEvent", "Worker"]
