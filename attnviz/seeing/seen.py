"""What a capture saw: a list of records that can be read as a table."""

from collections.abc import Iterator, Sequence
from html import escape

from attnviz.seeing.naming import nearest, within
from attnviz.seeing.record import AttentionRecord

_COLUMNS = ("index", "pass", "path", "kind", "heads", "queries × keys")


class Seen(Sequence):
    """The attentions of one or more forward passes, in the order in which they ran.

    seen[3], seen[2:5]: by number, as of a list.
    seen["encoder.layer.2"]: the one that ran in this module, or in one inside it. KeyError when
        none did, ValueError when there are several.
    """

    def __init__(self) -> None:
        self._records: list[AttentionRecord] = []

    def append(self, record: AttentionRecord) -> None:
        self._records.append(record)

    def free(self) -> None:
        """Empty the list and give the records' memory back; a view of them says so when asked."""
        for record in self:
            record.free()
        self._records.clear()

    def __getitem__(self, index: int | slice | str) -> AttentionRecord | list[AttentionRecord]:
        return self._at(index) if isinstance(index, str) else self._records[index]

    def _at(self, path: str) -> AttentionRecord:
        found = [record for record in self if within(path, record.path)]
        if not found:
            raise KeyError(f"no attention was seen in {path!r}{nearest(path, self._paths())}")
        if len(found) > 1:
            raise ValueError(
                f"{len(found)} attentions were seen in {path!r}, such as {found[0]} and "
                f"{found[1]}: take one of [r for r in seen if r.path == {found[0].path!r}], "
                "or seen[i] by the row i of the table"
            )
        return found[0]

    def _paths(self) -> list[str]:
        return [record.path for record in self]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[AttentionRecord]:
        return iter(self._records)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            tuple(
                str(x)
                for x in (i, r.pass_number, r.path, r.kind, r.heads, f"{r.n_queries} × {r.n_keys}")
            )
            for i, r in enumerate(self)
        ]

    def __repr__(self) -> str:
        rows = [_COLUMNS, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(c)}</th>' for c in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in self._rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
