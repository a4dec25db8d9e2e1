"""Files to and from the server: content-addressed, resumed where they were cut, checked by SHA-256."""
from __future__ import annotations

import asyncio
import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO

import grpc
import grpc.aio

from lwq._proto.v1.artifact_service_pb2 import (FindMissingBlobsRequest, FindMissingBlobsResponse, QueryWriteStatusRequest,
                                                QueryWriteStatusResponse, ReadArtifactRequest, WriteBlobRequest)
from lwq.errors import DataLoss, NotFound, from_rpc, invalid
from lwq.output import check_space
from lwq.transport import Patience, call
from lwq.types import Artifact, BlobRef, NamedBlob

_CHUNK_BYTES = 256 << 10
_HASHED_AT_ONCE_BYTES = 16 << 20
_SLOWEST_BYTES_PER_SECOND = 1 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PARTIAL = ".partial"
BytesListener = Callable[[int, int], None]  # bytes that are there, of how many


def _seconds(size_bytes: int) -> float:
    return 60 + size_bytes / _SLOWEST_BYTES_PER_SECOND


def _hash_piece(digest: "hashlib._Hash", f: BinaryIO) -> bool:
    """False at the end of the file."""
    piece = f.read(_HASHED_AT_ONCE_BYTES)
    digest.update(piece)
    return bool(piece)


async def _sha256_of(path: pathlib.Path) -> str:
    """By another thread, in pieces, so that other tasks run and a call that is cancelled ends soon."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while await asyncio.to_thread(_hash_piece, digest, f):
            pass
    return digest.hexdigest()


async def upload(blobs: Any, path: str | os.PathLike[str], patience: Patience) -> BlobRef:
    """Sends a file to the server's blob store, which may have it already."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise NotFound("NOT_FOUND", "FILE_NOT_FOUND", f"there is no file {path}")
    size = path.stat().st_size
    if size == 0:
        raise invalid("DATASET_INVALID", f"{path} is empty")
    blob = BlobRef(sha256=await _sha256_of(path), size_bytes=size)
    if not (await call(blobs.FindMissingBlobs, FindMissingBlobsRequest(blobs=[blob]), FindMissingBlobsResponse, patience)).missing:
        return blob
    most = 0
    while True:
        status = await call(blobs.QueryWriteStatus, QueryWriteStatusRequest(blob=blob), QueryWriteStatusResponse, patience)
        if status.complete:
            return blob
        if status.committed_bytes > most:
            most = status.committed_bytes
            patience.sign_of_life()
        try:
            await blobs.WriteBlob(_pieces(path, blob, status.committed_bytes), timeout=_seconds(size))
            return blob
        except grpc.aio.AioRpcError as e:
            error = from_rpc(e)
            if error.reason == "OFFSET_MISMATCH":  # another client sends the same bytes: ask again how far they are
                error.code = "ABORTED"
            await patience.after(error)


async def _pieces(path: pathlib.Path, blob: BlobRef, offset: int) -> AsyncIterator[WriteBlobRequest]:
    with open(path, "rb") as f:
        f.seek(offset)
        first = True
        while True:
            data = f.read(_CHUNK_BYTES)
            last = f.tell() >= blob.size_bytes or not data
            request = WriteBlobRequest(data=data, finish_write=last)
            if first:
                request.blob.CopyFrom(blob)
                request.write_offset = offset
            yield request
            if last:
                return
            first = False


async def download(artifacts: Any, artifact: Artifact, staging: pathlib.Path, patience: Patience,
                   listener: BytesListener | None = None) -> None:
    """Makes the folder `staging` hold the artifact's files and nothing else. What an interrupted call left there is used again."""
    _check_names(artifact)
    total = sum(file.blob.size_bytes for file in artifact.files)
    here = sum(path.stat().st_size for path in staging.iterdir() if path.is_file())
    check_space(staging, total - here)
    done = 0
    for file in artifact.files:
        before = done
        await _fetch(artifacts, artifact.name, file, staging, patience, lambda here: listener and listener(before + here, total))
        done += file.blob.size_bytes
    names = {file.name for file in artifact.files}
    for stranger in [path for path in staging.iterdir() if path.name not in names]:
        shutil.rmtree(stranger) if stranger.is_dir() else stranger.unlink()


def _check_names(artifact: Artifact) -> None:
    names: set[str] = set()
    for file in artifact.files:
        if not _PLAIN_NAME.fullmatch(file.name) or file.name.endswith(_PARTIAL) or file.name in names:
            raise invalid("ARTIFACT_FILE_NAME", f"{artifact.name} lists the file {file.name!r}, which is no plain name of its own")
        names.add(file.name)


async def _fetch(artifacts: Any, artifact: str, file: NamedBlob, staging: pathlib.Path, patience: Patience,
                 progress: Callable[[int], object]) -> None:
    whole, part = staging / file.name, staging / (file.name + _PARTIAL)
    if whole.exists() and await _sha256_of(whole) == file.blob.sha256:
        return
    for attempt in (1, 2):  # bytes of an earlier call may be wrong; those of this one are asked for once more
        await _append(artifacts, artifact, file, part, patience, progress)
        if await _sha256_of(part) == file.blob.sha256:
            with open(part, "rb") as f:
                await asyncio.to_thread(os.fsync, f.fileno())
            part.rename(whole)
            return
        part.unlink()
    raise DataLoss("DATA_LOSS", "DIGEST_MISMATCH",
                   f"the server's bytes of {file.name} do not have the digest {file.blob.sha256}")


async def _append(artifacts: Any, artifact: str, file: NamedBlob, part: pathlib.Path, patience: Patience,
                  progress: Callable[[int], object]) -> None:
    """Goes on from what `part` has, until it has the file's size."""
    size = file.blob.size_bytes
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    with open(part, "ab") as f:
        while f.tell() < size:
            request = ReadArtifactRequest(name=artifact, file=file.name, read_offset=f.tell(), if_sha256=file.blob.sha256)
            try:
                async for message in artifacts.ReadArtifact(request, timeout=_seconds(size)):
                    if message.offset != f.tell() or message.offset + len(message.data) > size:
                        raise DataLoss("DATA_LOSS", "OFFSET_MISMATCH",
                                       f"the server sent byte {message.offset} of {file.name}, expected {f.tell()}")
                    f.write(message.data)
                    patience.sign_of_life()
                    progress(f.tell())
                if f.tell() < size:
                    raise DataLoss("DATA_LOSS", "OFFSET_MISMATCH", f"{file.name} ended after {f.tell()} of {size} bytes")
            except grpc.aio.AioRpcError as e:
                f.flush()
                await patience.after(from_rpc(e))
        f.flush()
    progress(size)
