"""Which cells begin a slide, and which outputs a reader sees only by running or asking for them.

Run as a program, it writes this into the lessons and nothing else.
"""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "notebooks"
FEW = 2  # cells of a slide, after which prose that leads to code begins another one
# JupyterLab shows the first line of a folded output beside its three dots; this one has none.
NOTHING = {"data": {}, "metadata": {}, "output_type": "display_data"}
HEADING = re.compile(r"^(#{1,3}) ", re.M)


def slide_types(cells: list[dict]) -> list[str | None]:
    """Return for each cell "slide", "subslide" or None: it stands below the one before.

    Titles and sections are slides; what has a lower heading, or is prose that leads to code where
    the slide has some cells already, goes below them.
    """
    kinds, length = [], 0
    for cell, following in zip(cells, [*cells[1:], {"cell_type": "none"}], strict=True):
        is_prose = cell["cell_type"] == "markdown" and "<details>" not in "".join(cell["source"])
        heading = HEADING.search("".join(cell["source"])) if is_prose else None
        if heading:
            kind = "subslide" if heading[1] == "###" else "slide"
        else:
            leads = is_prose and following["cell_type"] == "code"
            kind = "subslide" if leads and length >= FEW else None
        length = 1 if kind else length + 1
        kinds.append(kind)
    return kinds


def arrange(cells: list[dict]) -> None:
    """Put it into the cells: slides, folded answers to predictions, solutions without a verdict."""
    for cell, kind in zip(cells, slide_types(cells), strict=True):
        metadata = cell["metadata"]
        metadata.pop("slideshow", None)
        if kind:
            metadata["slideshow"] = {"slide_type": kind}
        if "answer" in metadata.get("tags", []):
            metadata["jupyter"] = {"outputs_hidden": True}
            if cell["outputs"][:1] != [NOTHING]:
                cell["outputs"].insert(0, NOTHING)
        if "solution" in metadata.get("tags", []):
            cell["outputs"] = []


def write(path: Path) -> None:
    """Arrange a notebook; the rest of the file stays as it is."""
    form = {"indent": 1, "ensure_ascii": False, "sort_keys": True}
    notebook = json.loads(path.read_text(encoding="utf-8"))
    arrange(notebook["cells"])
    path.write_text(json.dumps(notebook, **form) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for lesson in sorted(FOLDER.glob("*.ipynb")):
        write(lesson)
