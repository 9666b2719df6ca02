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

    def batches(self) -> Iterator[pyarrow.RecordBatch]:
        """The rows as Arrow has them.

        Raises
        ------
        MissingInputError
            A table cannot be opened.
        InvalidInputError
            One is damaged, has no rows, lacks a column, or holds no embedding of ``DIMENSIONS`` finite numbers of which
            one is not 0; rows of two networks.
        """
        for path in self.paths:
            empty = True
            for batch in batches(path):
                empty = False
                yield self.checked(path, batch)
            if empty:
                raise InvalidInputError(f"{path}: has no rows")

    def checked(self, path: Path, batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        """The rows of a batch that are new, labeled; raises InvalidInputError."""
        import pyarrow

        columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in TEXT}
        inputs = columns["input"]
        if None in inputs or None in columns["network"]:
            raise InvalidInputError(f"{path}: a row has no input or no network")
        vectors(path, inputs, batch["embedding"])
        self.network = self.network or columns["network"][0]
        if other := set(columns["network"]) - {self.network}:
            raise InvalidInputError(f"{path}: embeddings of {min(other)}; the index is of {self.network}")
        columns["label"] = [self.labels.get(name, own) for name, own in zip(inputs, columns["label"], strict=True)]
        new = list(map(self.is_new, inputs))
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


def vectors(path: Path, inputs: Sequence[str], column: pyarrow.Array) -> NDArray[np.float16]:
    """The embeddings (n, 1280) of a column; raises InvalidInputError where one is none."""
    if column.null_count:
        raise InvalidInputError(f"{path}: a row has no embedding")
    found = matrix(column)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(found.astype(np.float32), axis=1)
    for what, wrong in (("not finite", ~np.isfinite(lengths)), ("zero", lengths == 0)):
        if wrong.any():
            raise InvalidInputError(f"{path}: the embedding of {inputs[int(wrong.argmax())]} is {what}")
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
