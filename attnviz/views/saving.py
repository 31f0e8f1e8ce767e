"""Writing a view to a file, without harm to what is there."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from attnviz.files import holds, replacing

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
    with replacing(path, lambda file: holds(file, _MARK[kind])) as unfinished:
        if kind == ".html":
            unfinished.write_text(page(), encoding="utf-8")
        else:
            about = {_CREATOR[kind]: "attnviz"}
            figure().savefig(unfinished, format=kind[1:], metadata=about, dpi=200)
