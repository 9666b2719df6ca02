"""Tables of embeddings as ``dcu embed`` writes them, read in batches and checked: what an index is built from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dcu import tables
from dcu.errors import InvalidInputError, MissingInputError
from dcu.tables import DIMENSIONS, EMBEDDINGS

if TYPE_CHECKING:
    import pyarrow

TEXT = tuple(EMBEDDINGS)[:-1]
"""Columns but the embedding."""


@dataclass
class Rows:
    """The rows of tables that an index is to take: checked, of one network, each input once.

    Parameters
    ----------
    paths : sequence of Path
        Tables, .parquet or .jsonl.
    labels : mapping
        Labels by input, in the place of the tables' own.
    network : str, optional
        The only network that is taken; without one, that of the first row.
    known : set of str
        Inputs that are left out; those that are given are added to it.
    """

    paths: Sequence[Path]
    labels: Mapping[str, str | None] = field(default_factory=dict)
    network: str | None = None
    known: set[str] = field(default_factory=set)
    taken: int = 0
    repeated: int = 0
    zero: list[str] = field(default_factory=list)
    """Inputs whose embedding is zero, as of images of a few pixels: they are similar to nothing, and left out."""
    labeled: int = 0
    """How many rows have got a label of ``labels``."""
    matched: bool = False
    """Whether any of the tables' inputs has one."""

    def batches(self) -> Iterator[pyarrow.RecordBatch]:
        """The rows as Arrow has them.

        Raises
        ------
        MissingInputError
            A table cannot be opened.
        InvalidInputError
            One is damaged, has no rows, lacks a column, or holds no embedding of ``DIMENSIONS`` finite numbers; rows of
            two networks; all embeddings are zero; labels of none of the rows.
        """
        read = 0
        for path in self.paths:
            empty = True
            for batch in batches(path):
                empty = False
                read += len(batch)
                yield self.checked(path, batch)
            if empty:
                raise InvalidInputError(f"{path}: has no rows")
        if len(self.zero) == read:
            raise InvalidInputError(f"{self.paths[0]}: all embeddings are zero")
        if self.labels and not self.matched:
            raise InvalidInputError(f"labels of none of the tables' inputs: such as {min(self.labels)}")

    def checked(self, path: Path, batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        """The rows of a batch that are new, labeled; raises InvalidInputError."""
        import pyarrow

        columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in TEXT}
        inputs = columns["input"]
        if None in inputs or None in columns["network"]:
            raise InvalidInputError(f"{path}: a row has no input or no network")
        zero = lengths(path, inputs, batch["embedding"]) == 0
        self.zero += [name for name, without in zip(inputs, zero, strict=True) if without]
        self.network = self.network or columns["network"][0]
        if other := set(columns["network"]) - {self.network}:
            raise InvalidInputError(f"{path}: embeddings of {min(other)}; the index is of {self.network}")
        columns["label"] = [self.labels.get(name, own) for name, own in zip(inputs, columns["label"], strict=True)]
        new = [not without and self.is_new(name) for name, without in zip(inputs, zero, strict=True)]
        self.matched = self.matched or any(name in self.labels for name in inputs)
        self.labeled += sum(fresh and name in self.labels for name, fresh in zip(inputs, new, strict=True))
        arrays = [pyarrow.array(columns[name], pyarrow.string()) for name in TEXT]
        whole = pyarrow.record_batch([*arrays, batch["embedding"]], schema=tables.arrow_schema(EMBEDDINGS))
        return whole.filter(pyarrow.array(new, pyarrow.bool_()))

    def is_new(self, name: str) -> bool:
        """Whether an input was not there before; from now on it is."""
        before = len(self.known)
        self.known.add(name)
        new = len(self.known) > before
        self.taken, self.repeated = self.taken + new, self.repeated + (not new)
        return new


def batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a table in the types of ``EMBEDDINGS``; raises as :func:`dcu.tables.read`."""
    import pyarrow

    tables.check(path)
    schema = tables.arrow_schema(EMBEDDINGS)
    try:
        if path.suffix.lower() == ".parquet":
            for batch in tables.parquet_batches(path, list(EMBEDDINGS)):
                yield pyarrow.record_batch(
                    [batch[name].cast(schema.field(name).type) for name in EMBEDDINGS], schema=schema
                )
            return
        found = tables.read(path, list(EMBEDDINGS))
        while rows := list(islice(found, tables.ROWS_READ)):
            with np.errstate(over="ignore"):  # infinite numbers are refused
                columns = tables.arrays(rows, schema)
            yield pyarrow.record_batch(columns, schema=schema)
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror or 'cannot be opened'}") from error
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise InvalidInputError(f"{path}: not a table of embeddings, which have {DIMENSIONS} numbers each") from error


def lengths(path: Path, inputs: Sequence[str], column: pyarrow.Array) -> NDArray[np.float32]:
    """The lengths (n,) of the embeddings of a column; raises InvalidInputError where one is none."""
    if column.null_count:
        raise InvalidInputError(f"{path}: a row has no embedding")
    with np.errstate(over="ignore"):
        found: NDArray[np.float32] = np.linalg.norm(matrix(column).astype(np.float32), axis=1)
    wrong = ~np.isfinite(found)
    if wrong.any():
        raise InvalidInputError(f"{path}: the embedding of {inputs[int(wrong.argmax())]} is not finite")
    return found


def matrix(column: pyarrow.Array) -> NDArray[np.float16]:
    """A column of vectors as an array (n, 1280)."""
    found: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, DIMENSIONS)
    return found


def labels_of(path: Path) -> dict[str, str | None]:
    """The label of each input of a table that ``dcu classify`` wrote; raises as :func:`dcu.tables.read`."""
    labels = {}
    for row in tables.read(path, ["input", "label"]):
        name, label = row["input"], row["label"]
        if not (isinstance(name, str) and isinstance(label, str | None)):
            raise InvalidInputError(f"{path}: an input or a label is not text")
        labels[name] = label
    return labels
