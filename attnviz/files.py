"""The one way in which attnviz writes a file: whole or not at all, and over nothing of others.

What is being written lies beside its target as `.attnviz-….unfinished`, and takes the target's
place when it is complete. A process that is killed meanwhile leaves such a file; the next write
into that folder takes it away.
"""

import errno
import mmap
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing tells there whether a writer still lives, so its file stays
    fcntl = None

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def check(path: str | os.PathLike, is_own: Callable[[Path], bool]) -> None:
    """Raise what `replacing` would raise before its block, and leave everything as it is."""
    with _unfinished(_target(path, is_own)):
        pass


@contextmanager
def replacing(path: str | os.PathLike, is_own: Callable[[Path], bool]) -> Iterator[Path]:
    """Write a file whole or not at all.

    path:   where it is to stand. Where that is a link, it stays one, and what it leads to is
            replaced.
    is_own: whether a file that is there already may be replaced, being of the same kind.
    Gives an empty file, to be written to in the block. When the block ends well it takes the place
    of the old one, with that one's permissions, or those of any new file; otherwise it goes.
    Raises FileNotFoundError when there is no such folder, IsADirectoryError for a folder,
    FileExistsError for a device, a pipe or a file of something else, PermissionError for what may
    not be written: all before the block. After it OSError when the disk is full, whatever the block
    made of that.
    """
    target = _target(path, is_own)
    with _unfinished(target) as unfinished:
        try:
            yield unfinished
            with unfinished.open("r+b") as file:  # so that it outlasts a power cut
                os.fsync(file.fileno())
        except Exception as error:
            if number := _full(error, unfinished):
                said = f"{os.strerror(number)}: {path} stays as it was; make room, and try again"
                raise OSError(number, said) from error
            raise
        if target.exists():
            shutil.copymode(target, unfinished)
        unfinished.replace(target)


def holds(path: Path, mark: bytes) -> bool:
    """Whether a file has these bytes in it anywhere; it may be of any size."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(mark) >= 0


def _target(path: str | os.PathLike, is_own: Callable[[Path], bool]) -> Path:
    """The file that a path leads to, if it may be written."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to save in")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise FileExistsError(f"{path} is {kind}, not a file: choose another name")
    if not os.access(target, os.R_OK | os.W_OK):
        raise PermissionError(
            f"{path} is there already and may not be written: choose another name"
        )
    if not is_own(target):
        raise FileExistsError(
            f"{path} is there already and is none of attnviz's: choose another name or move it away"
        )
    return target


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A new file beside the target, gone in the end; it is locked while this lasts."""
    _sweep(target.parent)
    path, lock = _new_file(target)
    try:
        yield path
    finally:
        if lock is not None:
            os.close(lock)
        path.unlink(missing_ok=True)


def _new_file(target: Path) -> tuple[Path, int | None]:
    while True:
        path = target.with_name(f".attnviz-{secrets.token_hex(8)}.unfinished")
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except OSError as error:
            said = f"{error.strerror}: {str(target.parent)!r} is no folder to write in"
            raise OSError(error.errno, said) from error
        if fcntl is None:  # an open file could not take another one's place there
            os.close(handle)
            return path, None
        with suppress(OSError):  # a file system without locks: then nothing is swept there either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)  # another process swept it before it was locked


def _sweep(folder: Path) -> None:
    """Take away what killed processes left: files that no writer holds any more."""
    if fcntl is None:
        return
    for path in folder.glob(".attnviz-*.unfinished"):
        with suppress(OSError):  # it is being written, or gone by now, or no file to open
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def _full(error: Exception, unfinished: Path) -> int | None:
    """The number of the error that a full disk gives, if that is why writing failed.

    A library may hide its reason: then this tries whether there is room for some more.
    """
    if not isinstance(error, OSError):
        try:
            with unfinished.open("ab") as file:
                file.write(bytes(1 << 16))
                os.fsync(file.fileno())
        except OSError as found:
            error = found
    number = getattr(error, "errno", None)
    return number if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None
