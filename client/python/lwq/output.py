"""Where an artifact goes: a directory, or one GGUF file with its proof beside it. All of it appears at once, or nothing."""
from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

from lwq.errors import AlreadyExists, ResourceExhausted, Unavailable, invalid

_GGUF = ".gguf"


def _absolute(out: str | os.PathLike[str]) -> pathlib.Path:
    return pathlib.Path(os.path.abspath(out))


def check(out: str | os.PathLike[str]) -> None:
    """That nothing is there that would be overwritten, and that it can be made. Raises AlreadyExists OUTPUT_EXISTS and InvalidArgument USAGE."""
    path = _absolute(out)
    if path.exists() and os.path.ismount(path):
        raise invalid("USAGE", f"{path} is where a file system is mounted, and a finished directory cannot be moved there: give one below it")
    if path.exists() and (path.suffix == _GGUF or not path.is_dir() or any(path.iterdir())):
        raise AlreadyExists("ALREADY_EXISTS", "OUTPUT_EXISTS", f"{path} exists: give another place, or remove it first")
    parent = next(p for p in path.parents if p.exists())
    try:  # what a file system says of rights is not all that it refuses: /proc takes no folder of root's either
        os.rmdir(tempfile.mkdtemp(prefix=".lwq-", dir=parent))
    except OSError as e:
        raise OSError(e.errno, f"{path} cannot be made, because {parent} takes no new folder: {e.strerror}") from None


def check_fits(out: str | os.PathLike[str], files: Iterable[str]) -> None:
    """That an artifact of these files can go to `out`. Raises InvalidArgument USAGE for one of several where that names one."""
    path = _absolute(out)
    if path.suffix == _GGUF and sum(name.endswith(_GGUF) for name in files) != 1:
        raise invalid("USAGE", f"{path} names a file, and this artifact is a directory of several: give a directory")


def check_profile(out: str | os.PathLike[str], profile: str) -> None:
    """The same of an artifact that is still to be made."""
    path = _absolute(out)
    if path.suffix == _GGUF and profile != "llama.cpp":
        raise invalid("USAGE", f'{path} names a GGUF file: add engine="llama.cpp", or give a directory')


def check_space(folder: pathlib.Path, size_bytes: int) -> None:
    """Raises ResourceExhausted when the file system has no room for so much more."""
    free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise ResourceExhausted("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED",
                                f"{folder} has room for {free:,} bytes and the download needs {size_bytes:,} more")


@contextlib.contextmanager
def staged(out: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """The folder `out`.partial, for this call alone. What an interrupted call left there is there again. Raises Unavailable
    LOCK_HELD while another call, of any process, brings files to the same place."""
    path = _absolute(out)
    staging, lock = path.with_name(path.name + ".partial"), path.with_name(path.name + ".partial.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as f:
        if not _lock(f.fileno(), lock):
            raise Unavailable("UNAVAILABLE", "LOCK_HELD", f"another download to {path} is going on")
        check(path)  # another call may just have ended
        staging.mkdir(exist_ok=True)
        try:
            yield staging
        finally:
            lock.unlink(missing_ok=True)


def _lock(fd: int, path: pathlib.Path) -> bool:
    """Whether this call has the lock, on the file that has that name now: who had it before removed its own."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(fd).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def publish(staging: pathlib.Path, out: str | os.PathLike[str]) -> pathlib.Path:
    """Puts what is staged to its place, and returns that."""
    path = _absolute(out)
    if path.suffix != _GGUF:
        if path.exists():
            path.rmdir()
        staging.rename(path)
        return path
    check_fits(path, (file.name for file in staging.iterdir()))
    files = [file for file in staging.iterdir() if file.suffix == _GGUF]
    for file in staging.iterdir():
        if file != files[0]:
            file.rename(path.with_name(f"{path.name}.{file.name}"))
    files[0].rename(path)
    staging.rmdir()
    return path
