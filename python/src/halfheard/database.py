"""Reads a sweep's results from the database, through its SQL views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import polars

#: The views that have a column ``sweep``; see docs/reference/sql.md.
VIEWS = frozenset(
    {
        "cell",
        "comparison",
        "declined",
        "epoch",
        "failures",
        "job_status",
        "measurement",
        "provenance",
        "reproduced",
        "sweep_protocol",
        "table_missing",
        "table_missing_overall",
        "table_overall",
        "table_rate",
    }
)


@dataclass
class Sweep:
    """A sweep's results.

    Attributes:
        id: Its id.
        name: Its name.
    """

    id: str
    name: str
    _connection: Any

    def rows(self, view: str = "measurement") -> list[dict[str, Any]]:
        """The rows of a view.

        Raises:
            ValueError: An unknown view.
        """
        if view not in VIEWS:
            raise ValueError(f"unknown view `{view}`: there are {', '.join(sorted(VIEWS))}")
        with self._connection.cursor() as cursor:
            # The name is one of the list.
            cursor.execute(f"SELECT * FROM {view} WHERE sweep = %s", (self.id,))
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def to_pandas(self, view: str = "measurement") -> pandas.DataFrame:
        """A view as a pandas data frame."""
        import pandas

        return pandas.DataFrame(self.rows(view))

    def to_polars(self, view: str = "measurement") -> polars.DataFrame:
        """A view as a polars data frame."""
        import polars

        return polars.DataFrame(self.rows(view), infer_schema_length=None)


def connect(database: str, sweep: str | None = None) -> Sweep:
    """Opens a sweep's results, read-only.

    Args:
        database: Its address, ``postgres://user@host/name``; the password is best left to ``~/.pgpass``.
        sweep: The sweep's name or id. By default the newest.

    Raises:
        ImportError: psycopg is missing: ``pip install halfheard[database]``.
        LookupError: There is no such sweep, or several.
    """
    import psycopg

    connection = psycopg.connect(database, autocommit=True)
    connection.execute("SET default_transaction_read_only = on")
    found = connection.execute(
        "SELECT id::text, name FROM sweep WHERE %(sweep)s::text IS NULL OR name = %(sweep)s OR id::text = %(sweep)s"
        " ORDER BY created DESC",
        {"sweep": sweep},
    ).fetchall()
    if not found:
        connection.close()
        raise LookupError("there is no sweep yet" if sweep is None else f"there is no sweep `{sweep}`")
    if sweep is not None and len(found) > 1:
        connection.close()
        raise LookupError(f"several sweeps are called `{sweep}`: give the id, one of {[row[0] for row in found]}")
    return Sweep(found[0][0], found[0][1], connection)
