"""Tables in the place of files and shards: one for all results of a run, or one for each shard."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dcu import remote, tables
from dcu.cli import files
from dcu.cli.entries import Entry
from dcu.cli.files import Inputs, Source
from dcu.cli.outputs import Output
from dcu.cli.places import Places, check, refuse
from dcu.errors import InvalidInputError, OutputError, UsageError


class TableOutput(Output):
    """One table for all results; entries that are in it already are not worked on again where it is extended."""

    table = True

    def __init__(self, places: Places, schema: tables.Schema, made_by: str, force: bool, extend: bool) -> None:
        super().__init__(places, made_by, force)
        self.schema, self.extend = tables.COLUMNS | dict(schema), extend
        self.present: set[str] = set()
        self.writer: tables.Writer | None = None

    def begin(self, stack: ExitStack) -> None:
        """Open the table, and take over the rows of the one that is there where it is to be extended."""
        if self.places.file:
            path = Path(self.places.file)
            there = files.exists(path)
            if there and not self.extend:
                files.check_free(path, self.force)
            self.open(path, stack, there and self.extend)
            if not (there and self.extend):  # another run may have made it before this one held its lock
                files.check_free(path, self.force)

    def open(self, path: Path, stack: ExitStack, extend: bool) -> None:
        """Open the table at a path."""
        self.writer = stack.enter_context(tables.writing(path, self.schema, self.made_by))
        if not extend:
            return
        self.check_table(path)
        for row in tables.read(path, list(self.schema)):
            if not isinstance(row["input"], str):
                raise InvalidInputError(f"{path}: a row has no input")
            self.add(row)
            self.present.add(tables.text(row["input"]))

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; raises OSError, which is no entry's: the table is damaged then."""
        assert self.writer is not None
        self.writer.add(row)

    def shard(self, source: Source, stack: ExitStack, keep: bool) -> Output:
        """The table itself, or where there is one for each shard, that of a shard."""
        if self.places.file:
            return self
        output = TableOutput(self.places, self.schema, self.made_by, self.force, self.extend)
        output.open(Path(str(self.places.of(source))), stack, keep)
        stack.push(output.close)
        return output

    def extended(self, source: Source, stack: ExitStack) -> Output:
        return self.shard(source, stack, keep=True)

    def close(self, *_: object) -> None:
        """State how many samples failed, before the table is complete."""
        assert self.writer is not None
        self.writer.failed = self.failed

    def finished(self, source: Source) -> int | None:
        if self.places.file:
            return 0 if isinstance(source, Entry) and self.has(source) else None
        path = Path(str(self.places.of(source)))
        if not files.exists(path):
            return None
        try:
            return self.check_table(path)
        except InvalidInputError as error:
            raise OutputError(str(error)) from error

    def check_table(self, path: Path) -> int:
        """Refuse a table of another command; how many samples failed. Raises OutputError, InvalidInputError."""
        if not tables.fits(path, self.schema):
            raise OutputError(f"{path}: exists already, with other columns; --force overwrites it")
        made_by, failed = tables.maker(path)
        if made_by:
            self.check_maker(str(path), made_by)
        return failed

    def has(self, entry: Entry) -> bool:
        return tables.text(entry.name) in self.present

    def copy(self, entry: Entry) -> None:
        """Nothing is to be copied: what is missing of an earlier run failed there."""
        self.failed += not self.has(entry)

    def place(self, entry: Entry) -> str:
        return str(self.places.file or self.places.of(entry.inside or entry))

    def put(self, entry: Entry, content: Any) -> bytes | None:
        shard = entry.inside.name if entry.inside else None
        row = {"input": entry.name, "key": entry.key, "shard": shard} | content
        self.add({column: row[column] for column in self.schema})
        return None


def tables_of(
    found: Inputs, output: str, schema: tables.Schema, made_by: str, force: bool, extend: bool
) -> TableOutput:
    """One table for all inputs, or in a directory one for each shard.

    ``made_by`` is what Parquet tables state: the command with all that decides what is written.

    Raises
    ------
    UsageError
        Neither .jsonl nor .parquet, and there are inputs that are no shards; or an input is the output.
    UnavailableError
        pyarrow is not installed.
    """
    path = Path(remote.local(output))
    if path.suffix.lower() in tables.SUFFIXES or remote.is_url(output):
        tables.check(path)
        refuse(path, [source.path for source in found.sources if source.path], "-o")
        return TableOutput(Places("-o", "", file=path), schema, made_by, force, extend)
    if not found.shards_only or os.path.isfile(path):
        raise UsageError(f"{output}: name a table with -o, .parquet or .jsonl; of shards, a directory")
    tables.need_pyarrow()
    places = Places("-o", "", path, shard_suffix=".parquet")
    check(found, places)
    return TableOutput(places, schema, made_by, force, extend)
