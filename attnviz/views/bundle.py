"""Browser code in one piece: a widget is loaded alone, so what it imports is put into it."""

import re
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_IMPORT = re.compile(r'^import \{[^}]*\} from "(\./|\.\./)([\w/]+\.js)";\n', re.MULTILINE)


@cache
def module(file: Path) -> str:
    """An ES module with the files that it imports, and those that they import, written into it.

    file: its path. Imports must name their files relatively, one statement each, and the names at
    the top level of all the files must differ.
    """
    return _inline(file.resolve(), set())


def _inline(file: Path, known: set[Path]) -> str:
    def put(found: re.Match) -> str:
        other = (file.parent / found[1] / found[2]).resolve()
        if other in known:
            return ""
        known.add(other)
        return re.sub(r"^export ", "", _inline(other, known), flags=re.MULTILINE)

    return _IMPORT.sub(put, file.read_text(encoding="utf-8"))


@cache
def style(*names: str) -> str:
    """The style sheets of static/ with these names, one after the other."""
    return "\n".join((_HERE / "static" / f"{n}.css").read_text(encoding="utf-8") for n in names)
