"""Tables of rows, as JSON Lines or Parquet by their extension; a table has its name once it is complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dcu.errors import InvalidInputError, MissingInputError, OutputError, UnavailableError, UsageError
from dcu.io import lock_of, locked, replacing

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".jsonl", ".parquet")
ROWS_AT_ONCE = 4096
"""Rows of a row group, which are in memory together."""
ROWS_READ = 512
"""Rows that are read together."""
URL = re.compile(r"[a-z][a-z0-9+.-]*:/")
"""How a URL begins, as a path."""
NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters, which JSON may hold, and which stand for no byte of a file's name."""
MADE_BY, FAILED = b"dcu", b"dcu.failed"
"""The metadata of Parquet tables that state what made them, and how many of their inputs failed."""
DIMENSIONS = 1280
"""Numbers of an embedding."""
Schema = Mapping[str, str]
"""Column to type: string, int64, double, float32, or list<...>, struct and so on as ``TYPES`` has them."""
COLUMNS = {"input": "string", "key": "string", "shard": "string", "codec": "string", "network": "string"}
"""What all tables of results begin with: the entry, and the models."""
EMBEDDINGS = COLUMNS | {"label": "string", "embedding": "embedding"}
"""Columns of tables of embeddings; the label is that of a sidecar .cls."""


class Writer(Protocol):
    """Takes the rows of a table one by one."""

    failed: int
    """How many inputs have no row, as they failed."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""

    def close(self) -> None:
        """Write what is left."""


class JsonLines:
    """One JSON object per line."""

    failed = 0

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.file.write(json.dumps({name: plain(value) for name, value in row.items()}) + "\n")

    def close(self) -> None:
        """Write what is left."""
        self.file.close()


class Parquet:
    """Columns of a schema; rows are written in groups of ``ROWS_AT_ONCE``."""

    failed = 0

    def __init__(self, path: Path, schema: Schema, made_by: str) -> None:
        import pyarrow.parquet

        self.schema = arrow_schema(schema)
        if made_by:
            self.schema = self.schema.with_metadata({MADE_BY: made_by.encode("utf-8", "surrogateescape")})
        self.file = path.open("wb")  # pyarrow takes no path that is not UTF-8
        self.writer = pyarrow.parquet.ParquetWriter(self.file, self.schema, compression="zstd")
        self.rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.rows.append(row)
        if len(self.rows) == ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held as one group."""
        import pyarrow

        if self.rows:
            self.writer.write_table(pyarrow.table(arrays(self.rows, self.schema), schema=self.schema))
            self.rows.clear()

    def close(self) -> None:
        """Write what is left."""
        try:
            self.flush()
            if self.failed:
                self.writer.add_key_value_metadata({FAILED: str(self.failed)})
        finally:
            try:
                self.writer.close()
            finally:
                self.file.close()


def arrays(rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema) -> list[pyarrow.Array]:
    """Rows as Arrow's columns; raises pyarrow.ArrowException, ValueError, TypeError."""
    import pyarrow

    return [pyarrow.array([arrow(row.get(field.name), field.type) for row in rows], field.type) for field in schema]


def arrow(value: Any, kind: pyarrow.DataType) -> Any:
    """A value as Arrow takes it for a column: vectors in half precision, text that can be encoded."""
    import numpy as np
    import pyarrow

    if isinstance(value, str):
        return text(value)
    return np.asarray(value, np.float16) if value is not None and pyarrow.types.is_fixed_size_list(kind) else value


def text(value: str) -> str:
    r"""Text as tables hold it: bytes of file names that are no UTF-8 as ``\xff``."""
    value = NO_BYTES.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists."""
    return [round(number, 5) for number in value.tolist()] if hasattr(value, "tolist") else value


def arrow_schema(schema: Schema) -> pyarrow.Schema:
    """The Arrow schema of columns."""
    import pyarrow as pa

    prediction = pa.struct([("label", pa.string()), ("index", pa.int32()), ("probability", pa.float32())])
    types = {
        "string": pa.string(),
        "int": pa.int64(),
        "double": pa.float64(),
        "float": pa.float32(),
        "predictions": pa.list_(prediction),
        "embedding": pa.list_(pa.float16(), DIMENSIONS),
    }
    return pa.schema([(name, types[kind]) for name, kind in schema.items()])


def check(path: Path) -> None:
    """Refuse a URL or a name of another extension, and Parquet where pyarrow is missing.

    Raises
    ------
    UsageError
        Neither .jsonl nor .parquet.
    UnavailableError
        pyarrow is not installed.
    """
    if path.suffix.lower() not in SUFFIXES or URL.match(str(path)):
        name = URL.sub(lambda found: f"{found[0]}/", str(path))  # paths have one slash only
        if path.is_dir():
            raise UsageError(f"{name}: is a directory; name its tables, such as {name}/*.parquet")
        raise UsageError(f"{name}: tables are local files, {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        need_pyarrow()


def need_pyarrow() -> None:
    """Raise UnavailableError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UnavailableError("Parquet needs pyarrow: pip install 'dcu-codec[parquet]'") from error


@contextmanager
def writing(path: Path, schema: Schema, made_by: str = "") -> Iterator[Writer]:
    """What takes the rows of a table, which is there once all are written; Parquet states what it was made by.

    Raises
    ------
    OutputError
        It cannot be written.
    UsageError, UnavailableError
        As :func:`check`.
    """
    check(path)
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock_of(path), temporary=True))
            except BlockingIOError as error:
                raise OutputError(f"{path}: another run is writing it") from error
            part = stack.enter_context(replacing(path))
            writer: Writer = JsonLines(part) if path.suffix.lower() == ".jsonl" else Parquet(part, schema, made_by)
            try:
                yield writer
            finally:
                writer.close()
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


def read(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table, as far as these columns go.

    Raises
    ------
    MissingInputError
        It cannot be opened.
    InvalidInputError
        It is damaged, or a column is missing.
    UsageError, UnavailableError
        As :func:`check`.
    """
    check(path)
    try:
        if path.suffix.lower() == ".jsonl":
            yield from json_rows(path, columns)
        else:
            yield from parquet_rows(path, columns)
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror or error}") from error


def json_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of JSON Lines; raises OSError and InvalidInputError."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                yield {column: row[column] for column in columns}
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InvalidInputError(f"{path}:{number}: not a row with {', '.join(columns)}") from error


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of Parquet; raises OSError and InvalidInputError."""
    for batch in parquet_batches(path, columns):
        yield from batch.to_pylist()


def parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    """The rows of Parquet in batches of ``ROWS_READ``; raises OSError and InvalidInputError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as file:
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                raise InvalidInputError(f"{path}: has no column {missing[0]}")
            yield from file.iter_batches(ROWS_READ, columns=list(columns))
    except pyarrow.ArrowException as error:
        raise InvalidInputError(f"{path}: not a Parquet file, or damaged") from error


def columns(path: Path) -> list[str]:
    """The columns of a table, of JSON Lines those of the first row; raises as :func:`read`."""
    check(path)
    if path.suffix.lower() == ".parquet":
        return list(parquet_schema(path).names)
    try:
        with path.open("rb") as file:
            return list(json.loads(file.readline() or b"{}"))
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"{path}: not a table, or damaged") from error


def fits(path: Path, schema: Schema) -> bool:
    """Whether a table has these columns, in Parquet of these types too; raises as :func:`read`."""
    if path.suffix.lower() == ".parquet":
        return bool(parquet_schema(path).equals(arrow_schema(schema)))
    return set(columns(path)) in (set(), set(schema))


def maker(path: Path) -> tuple[str | None, int]:
    """What made a table, and how many inputs failed, where it states that, as Parquet does; raises as :func:`read`."""
    if path.suffix.lower() != ".parquet":
        return None, 0
    stated = parquet_metadata(path)
    made_by, failed = stated.get(MADE_BY), stated.get(FAILED, b"")
    return (
        None if made_by is None else made_by.decode("utf-8", "surrogateescape"),
        int(failed) if failed.isdigit() else 0,
    )


def parquet_schema(path: Path) -> pyarrow.Schema:
    """The schema of a Parquet file; raises MissingInputError, InvalidInputError."""
    with opened_parquet(path) as table:
        return table.schema_arrow


def parquet_metadata(path: Path) -> Mapping[bytes, bytes]:
    """The metadata of a Parquet file; raises MissingInputError, InvalidInputError."""
    with opened_parquet(path) as table:
        return table.metadata.metadata or {}


@contextmanager
def opened_parquet(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """A Parquet file; raises MissingInputError, InvalidInputError."""
    import pyarrow.parquet

    try:
        with path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as table:
            yield table
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:  # pyarrow's are ValueError too
        raise InvalidInputError(f"{path}: not a table, or damaged") from error
