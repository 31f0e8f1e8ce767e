"""Writing a view to a file, without harm to what is there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

_CREATOR = {".png": "Software", ".svg": "Creator", ".pdf": "Creator"}
_MARK = {  # in every file written here, by which it is known again
    ".html": b'<meta name="generator" content="attnviz">',
    ".png": b"Software\0attnviz",
    ".svg": b"<dc:title>attnviz</dc:title>",
    ".pdf": b"/Creator (attnviz)",
}


def write(path: Path, page: Callable[[], str], figure: Callable[[], Figure]) -> None:
    """Write a page or a figure, whichever the ending asks for; errors as in `View.save`.

    The old file stays until the new one is complete.
    """
    kind = path.suffix.lower()
    if kind not in _MARK:
        raise ValueError(f"path must end in .html, .png, .svg or .pdf, got {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to save in")
    if path.exists() and _MARK[kind] not in path.read_bytes():
        raise FileExistsError(f"{path} is there already and is none of attnviz's: choose another")
    handle, name = tempfile.mkstemp(suffix=kind, dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        if kind == ".html":
            unfinished.write_text(page(), encoding="utf-8")
        else:
            figure().savefig(unfinished, metadata={_CREATOR[kind]: "attnviz"}, dpi=200)
        unfinished.chmod(0o666 & ~_umask())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
