"""What a capture saw: a list of records that can be read as a table."""

from collections.abc import Iterator, Sequence
from html import escape

from attnviz.seeing.record import AttentionRecord

_COLUMNS = ("index", "pass", "path", "kind", "heads", "queries × keys")


class Seen(Sequence):
    """The attentions of one or more forward passes, in the order in which they ran."""

    def __init__(self) -> None:
        self._records: list[AttentionRecord] = []

    def append(self, record: AttentionRecord) -> None:
        self._records.append(record)

    def free(self) -> None:
        """Empty the list and give the records' memory back; a view of them says so when asked."""
        for record in self:
            record.free()
        self._records.clear()

    def __getitem__(self, index: int | slice) -> AttentionRecord | list[AttentionRecord]:
        return self._records[index]

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
