"""Texts, and files of them, read in one way everywhere: each refusal names the place."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

_WANTED = {str: "a text", int: "a whole number", list: "a list of texts"}
_BYTE = 0xDC00  # what Python's "surrogateescape" adds to a byte that is no UTF-8
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")  # how a file in UTF-16 begins, read so


class MissingKey(KeyError, ValueError):
    """A row lacks a key that it must have."""

    __str__ = ValueError.__str__  # KeyError's puts the message in quotes


def check_text(name: str, text: object) -> str:
    """Return a text, or raise TypeError for what is none, ValueError for one with half characters.

    name: where it stands, for the message.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a text, got {short(text)} ({type(text).__name__})")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} must be a text of whole characters, got half of one, "
            f"{text[error.start]!r}, at place {error.start}"
        ) from error
    return text


def several_texts(texts: Iterable[str], name: str = "texts") -> list[str]:
    """Return texts as a list, or raise as `check_text` does, TypeError for a single text, too."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(
            f"{name} must be several texts, such as a list, got one {type(texts).__name__}"
        )
    return [check_text(f"{name}[{i}]", text) for i, text in enumerate(texts)]


def check_file(file: str | Path) -> Path:
    """Return the path of a file that is there, or raise FileNotFoundError."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return Path(file)


def read_lines(file: str | Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file in UTF-8, each with its place, such as "corpus.txt, line 3".

    A line ends at a newline of any system, and nowhere else: `str.splitlines` would also cut texts
    at U+2028, form feeds and the like. A byte order mark in front is left out.
    Raises FileNotFoundError when there is no file, ValueError at a line that is no UTF-8.
    """
    with check_file(file).open(encoding="utf-8", errors="surrogateescape") as opened:
        for number, line in enumerate(opened, 1):
            place = f"{file}, line {number}"
            _check_utf8(place, line, file)
            yield place, line.removesuffix("\n").removeprefix("\ufeff")


def read_rows(file: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with one JSON object a line, each with its place; blank lines are none.

    A file that ends in .json may also hold one list of objects.
    Raises as `read_lines`, and ValueError at what is no JSON object.
    """
    for place, line in read_lines(file):
        if Path(file).suffix.lower() == ".json" and line.lstrip().startswith("["):
            yield from _rows_of_list(file)
            return
        if line.strip():
            yield place, _object(place, _parsed(place, line))


def check_row(
    place: str, row: Mapping[str, Any], fields: Mapping[str, type], called: str = "key"
) -> None:
    """Raise unless a row has some keys with values of the right kind.

    place: of the row, for the message.   fields: for each key str, int or list, of texts.
    called: what a key is there.
    Raises MissingKey, which is a KeyError and a ValueError; ValueError for another kind of value.
    """
    for key, kind in fields.items():
        if key not in row:
            raise MissingKey(f"{place}: there is no {called} {key!r}, only {sorted(row)}")
        value = row[key]
        if type(value) is not kind:  # a bool is no whole number
            raise ValueError(f"{place}: {key!r} must be {_WANTED[kind]}, got {short(value)}")
        try:
            for text in {str: [value], list: value}.get(kind, ()):
                check_text(f"{place}: {key!r}", text)
        except TypeError as error:
            raise ValueError(
                f"{place}: {key!r} must be {_WANTED[kind]}, got {short(value)}"
            ) from error


def _check_utf8(place: str, line: str, file: str | Path) -> None:
    try:
        line.encode()
        wrong = line.find("\0")  # where UTF-16 has no mark in front
    except UnicodeEncodeError as error:
        wrong = error.start
    if wrong < 0:
        return
    byte, code = ord(line[wrong]) % _BYTE, "cp1252"
    if "\0" in line or line.startswith(_UTF_16):
        code = "utf-16"
    raise ValueError(
        f"{place}: must be text in UTF-8, got the byte 0x{byte:02x} at place {wrong} of the line. "
        f"If the file is in {code}, write it anew: from pathlib import Path; "
        f"Path('new').write_text(Path({str(file)!r}).read_text({code!r}), 'utf-8')"
    )


def _rows_of_list(file: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = "\n".join(line for _, line in read_lines(file))
    for number, row in enumerate(_parsed(str(file), text), 1):
        place = f"{file}, row {number}"
        yield place, _object(place, row)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: must be JSON, got {short(text)}: {error}") from error


def _object(place: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: must be a JSON object, got {short(row)}")
    return row
