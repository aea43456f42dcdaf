"""Reads rows of older schemas as rows of today's.

Schema 1 had no studies. Schema 2 had prose ("powered off") where codes are now; few columns hold a code, and each of
their former values is listed here. Until schema 2, one column had another name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 3
SINGLE = "single"  # the study of a run that belongs to none
READABLE = frozenset({1, 2, SCHEMA})
RENAMED = {"run_key": "turn_key"}  # columns of today, by the names that they had until schema 2
_ENDS = {
    "powered off": "powered_off",
    "out of memory": "out_of_memory",
    "console flood": "console_flood",
    "stopped by the host": "stopped",
    "QEMU failed": "qemu_failed",
    "not built": "not_built",
}
_FAULTS = {
    "killed from outside": "killed_from_outside",
    "the host is out of memory": "host_out_of_memory",
    "the worker was restarted": "worker_restarted",
    "files of the study are gone from its cache": "files_missing",
    "what it would boot is not what the driver means": "files_differ",
}


def upgraded(table: pa.Table) -> pa.Table:
    """Return the rows of a table of schema 1 or 2 as rows of today's schema."""
    import pyarrow as pa

    if "study" not in table.column_names:
        table = table.append_column("study", pa.array([SINGLE] * table.num_rows))
    former = {old: new for new, old in RENAMED.items()}
    table = table.rename_columns([former.get(name, name) for name in table.column_names])
    for column, code in (("end", _end), ("host_fault", _fault)):
        if column in table.column_names:
            table = _mapped(table, column, code)
    number = table.column_names.index("schema")
    return table.set_column(number, "schema", pa.array([SCHEMA] * table.num_rows))


def _mapped(table: pa.Table, column: str, code: Callable[[str], str]) -> pa.Table:
    import pyarrow as pa

    values = [None if text is None else code(str(text)) for text in table[column].to_pylist()]
    return table.set_column(table.column_names.index(column), column, pa.array(values, pa.string()))


def _end(text: str) -> str:
    return _ENDS.get(text, text)


def _fault(text: str) -> str:
    """Return the code of a fault; for those that named a worker or a problem of the host, `error` has the details."""
    if text.startswith("the worker ") and text.endswith(" was lost"):
        return "worker_lost"
    return _FAULTS.get(text, "host_cannot_run" if text else "")
