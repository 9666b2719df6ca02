"""An index of embeddings: a LanceDB table in a directory, searched by cosine similarity.

LanceDB commits each change by renaming one small file, so a reader sees the rows from before or those after it. It is
embedded: no server, no access to a network, no file outside of the directory.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcu import tables
from dcu.errors import DcuError, InvalidInputError, MissingInputError, OutputError, UnavailableError, UsageError
from dcu.io import locked
from dcu.search.features import TEXT, Rows, labels_of, matrix
from dcu.search.vectors import Vectors
from dcu.tables import DIMENSIONS, EMBEDDINGS

if TYPE_CHECKING:
    import pyarrow
    from lancedb.db import DBConnection
    from lancedb.table import Table

TABLE = "embeddings"
QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`""")
"""Text and names in a condition."""
LOCK = ".lock"
LARGE = 10**5
"""Vectors from which on a search through all of them takes noticeable time."""
NEAR_DUPLICATE = 0.9
"""Cosine similarity of near-duplicates (experiments/2026-11-29-near-duplicates)."""
PROBES = 12
"""Partitions of an approximate index that a search looks into."""
SAMPLED, ROUNDS = 32, 10
"""Vectors per partition from which k-means finds the partitions, and its iterations."""
QUERIES, NEAREST = 100, 10
"""Of the recall of an approximate index: queries, and nearest neighbors of each."""
FULL = ("No space left", "os error 28", "File too large", "os error 27", "Disk quota", "os error 122")
"""What LanceDB says where a disk is full."""


@dataclass(frozen=True)
class Hit:
    """A row of an index, its cosine similarity to a query, and whether that is a near-duplicate's."""

    input: str
    key: str | None
    shard: str | None
    label: str | None
    similarity: float
    near_duplicate: bool


@dataclass(frozen=True)
class Added:
    """How many rows an index has taken, and how many it has left out as their inputs were there already.

    ``zero``: inputs left out as their embedding is zero; ``labeled``: rows with a label of the table of labels.
    """

    network: str
    added: int
    skipped: int
    count: int
    labeled: int
    zero: list[str]


class Index:
    """The embeddings of one network; :meth:`search` finds the most similar ones.

    Parameters
    ----------
    path : Path
        Directory that :func:`build` made.

    Raises
    ------
    MissingInputError
        There is no index.
    InvalidInputError
        It is damaged.
    UnavailableError
        LanceDB is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: Vectors | None = None
        self.searched = False
        with reading(path):
            self.table = opened(path)
            if self.table.schema.names != list(EMBEDDINGS):
                raise InvalidInputError(f"{path}: not an index of dcu")
            self.count: int = self.table.count_rows()
            (first,) = self.table.search().select(["network", "codec"]).limit(1).to_arrow().to_pylist()
        self.network, self.codec = str(first["network"]), str(first["codec"])

    @property
    def approximate(self) -> bool:
        """Whether there is an approximate index."""
        with reading(self.path):
            return bool(list(self.table.list_indices()))

    def search(
        self, vector: ArrayLike, top: int = 10, where: str | None = None, least: float = -1.0, exact: bool = False
    ) -> list[Hit]:
        """The most similar rows by falling similarity.

        Parameters
        ----------
        vector : array_like
            (1280,), of the index's network.
        top : int
            Number of rows.
        where : str, optional
            SQL condition on the columns, evaluated before the search.
        least : float
            Leave out rows of a lower cosine similarity, possibly all.
        exact : bool
            Compare with all rows, also where there is an approximate index.

        Raises
        ------
        UsageError
            ``where`` is not a condition on the columns.
        InvalidInputError
            The index is damaged.
        """
        query = np.asarray(vector, np.float16)
        if not query.any():
            raise InvalidInputError("the embedding of the query is zero: no image is similar to it")
        if where is not None and ";" in QUOTED.sub("", where):
            raise UsageError("--where: is one condition, without a semicolon")
        try:
            found = self.nearest(query, top, where, exact)
        except (RuntimeError, ValueError, OSError) as error:
            with reading(self.path):
                self.nearest(query, top, None, exact)  # is it the condition?
            raise UsageError(f"--where: {reason(error)}") from error
        hits = [hit(row) for row in found]
        return [each for each in hits if each.similarity >= least]

    def nearest(self, query: NDArray[np.float16], top: int, where: str | None, exact: bool) -> list[dict[str, Any]]:
        """Rows as LanceDB gives them, ``_distance`` is 1 - cosine; raises what LanceDB raises."""
        top = min(top, self.count)
        fits = where is None and self.count <= LARGE and (exact or not self.approximate)
        if fits and self.searched:
            return self.nearest_in_memory(query, top)
        self.searched |= fits
        search: Any = self.table.search(query, vector_column_name="embedding", query_type="vector")
        search = search.distance_type("cosine").nprobes(PROBES).limit(top).select([*TEXT, "_distance"])
        if where is not None:
            search = search.where(where, prefilter=True)
        found: list[dict[str, Any]] = (search.bypass_vector_index() if exact else search).to_arrow().to_pylist()
        return found

    def nearest_in_memory(self, query: NDArray[np.float16], top: int) -> list[dict[str, Any]]:
        """As :meth:`nearest`: from the second search on all vectors, 2.6 KB each, are in memory."""
        if self.kept is None:
            batches = self.table.search().select(["embedding"]).to_batches()
            self.kept = Vectors(self.count, DIMENSIONS, (matrix(batch["embedding"]) for batch in batches))
        numbers, similarities = self.kept.nearest(query, top)
        taken = self.table.take_offsets(numbers).select(list(TEXT)).to_arrow().to_pylist()  # in the order of the table
        rows = dict(zip(sorted(numbers), taken, strict=True))
        return [{**rows[n], "_distance": 1 - s} for n, s in zip(numbers, similarities, strict=True)]

    def rows(self, start: int, count: int, columns: Sequence[str]) -> pyarrow.Table:
        """Columns of ``count`` rows from ``start`` on, in an order that stays; raises InvalidInputError."""
        with reading(self.path):
            return self.table.search().select(list(columns)).offset(start).limit(count).to_arrow()

    def vectors(self, start: int, count: int) -> NDArray[np.float32]:
        """The vectors (n, 1280) of these rows, each of length 1; raises InvalidInputError."""
        found = matrix(self.rows(start, count, ["embedding"])["embedding"].combine_chunks()).astype(np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found

    def add(self, paths: Sequence[Path], labels: Path | None = None) -> Added:
        """Append the rows of tables whose inputs are not there; all of them or, where that fails, none.

        Raises
        ------
        InvalidInputError, MissingInputError
            A table is of another network or damaged, see :meth:`dcu.search.features.Rows.batches`.
        OutputError
            It cannot be written, or another process is writing.
        """
        with writing(self.path):
            self.table.checkout_latest()
            known = {row for batch in self.inputs() for row in batch}
            rows = Rows(paths, labels_of(labels) if labels else {}, self.network, known)
            stored(self.path, rows, lambda data: self.table.add(data))
            self.kept = None
            if not self.approximate:
                tidy(self.table)
            self.count = self.table.count_rows()
        return Added(self.network, rows.taken, rows.repeated, self.count, rows.labeled, rows.zero)

    def inputs(self) -> Iterator[list[str]]:
        """The inputs of all rows, in batches."""
        with reading(self.path):
            for batch in self.table.search().select(["input"]).to_batches():
                yield batch["input"].to_pylist()

    def make_approximate(self) -> float:
        """Make an index of inverted lists (IVF), or make it anew; its recall@10 against exact search.

        Vectors are partitioned by k-means into about the square root of their number; a search looks into the
        ``PROBES`` partitions whose centers are nearest, and compares exactly there.
        """
        from lancedb.index import IvfFlat

        lists = max(1, math.isqrt(self.count))
        with writing(self.path):
            self.table.checkout_latest()
            self.kept = None
            tidy(self.table)  # before: it would merge the partitions of an index that is there
            settings = IvfFlat("cosine", num_partitions=lists, sample_rate=SAMPLED, max_iterations=ROUNDS)
            self.table.create_index("embedding", config=settings)
        return self.recall()

    def recall(self) -> float:
        """recall@10 of approximate search: the share of the nearest neighbors of rows that it finds, but themselves."""
        chosen = np.linspace(0, self.count - 1, min(QUERIES, self.count)).astype(int)
        found = wanted = 0
        for row in chosen:
            query = self.vectors(int(row), 1)[0].astype(np.float16)
            with reading(self.path):
                own = self.rows(int(row), 1, ["input"])["input"][0].as_py()
                exact, fast = (
                    {hit["input"] for hit in self.nearest(query, NEAREST + 1, None, e)} for e in (True, False)
                )
            exact, fast = exact - {own}, fast - {own}
            found, wanted = found + len(exact & fast), wanted + len(exact)
        return found / wanted if wanted else 1.0


def build(path: Path, sources: Sequence[Path], labels: Path | None = None, force: bool = False) -> Added:
    """Make an index of the rows of tables; with ``force`` in the place of one that is there, once it is complete.

    Raises
    ------
    InvalidInputError, MissingInputError
        As :meth:`Index.add`; the index that is to be replaced is damaged.
    OutputError
        There is an index already, or something else; it cannot be written, or another process is writing.
    UsageError, UnavailableError
        A URL in the place of a directory; LanceDB is not installed.
    """
    need_lancedb(path)
    check_place(path, force)
    rows = Rows(sources, labels_of(labels) if labels else {})
    with writing(path), removed_on_failure(path):
        stored(path, rows, lambda data: connect(path).create_table(TABLE, data, mode="overwrite"))
        tidy(connect(path).open_table(TABLE))
    return Added(str(rows.network), rows.taken, rows.repeated, rows.taken, rows.labeled, rows.zero)


def hit(row: dict[str, Any]) -> Hit:
    """A row as LanceDB gives it."""
    similarity = round(min(1.0, 1.0 - row["_distance"]), 4)
    columns = {name: row[name] for name in ("input", "key", "shard", "label")}
    return Hit(**columns, similarity=similarity, near_duplicate=similarity >= NEAR_DUPLICATE)


def need_lancedb(path: Path) -> None:
    """Raise UnavailableError where LanceDB is not installed, UsageError for a URL in the place of an index."""
    if tables.URL.match(str(path)):
        raise UsageError(f"{path}: an index is a local directory")
    tables.need_pyarrow()
    os.environ.setdefault("LANCEDB_LOG", "off")  # read once; it would print warnings of its own
    try:
        import lancedb  # noqa: F401
    except ImportError as error:
        raise UnavailableError("search needs LanceDB: pip install 'dcu-codec[search]'") from error


def connect(path: Path) -> DBConnection:
    """The database of a directory, which is made where there is none; raises what LanceDB raises."""
    import lancedb

    return lancedb.connect(path.absolute())


def opened(path: Path) -> Table:
    """The table of an index; raises MissingInputError, UnavailableError, UsageError, and what LanceDB raises."""
    need_lancedb(path)
    if not is_index(path):
        raise MissingInputError(f"{path}: no index")
    return connect(path).open_table(TABLE)


def is_index(path: Path) -> bool:
    """Whether there is an index at a path: not what an interrupted first build has left."""
    versions = path / f"{TABLE}.lance" / "_versions"
    return os.path.isdir(versions) and any(versions.glob("*.manifest"))


def check_place(path: Path, force: bool) -> None:
    """Raise OutputError where an index cannot be made at a path."""
    if is_index(path):
        if not force:
            raise OutputError(f"{path}: exists already; --force overwrites it")
        with reading(path):
            opened(path)
    elif os.path.isdir(path) and {entry.name for entry in path.iterdir()} - {f"{TABLE}.lance", LOCK}:
        raise OutputError(f"{path}: a directory that holds other files")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the only process that writes to an index; raises OutputError."""
    try:
        with locked(path / LOCK):
            yield
    except BlockingIOError as error:
        raise OutputError(f"{path}: another process is writing to it") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
    except RuntimeError as error:
        raise OutputError(f"{path}: cannot be written ({reason(error)})") from error


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Remove what a first build has written where it fails; what an index has stays."""
    first = not is_index(path)
    try:
        yield
    except BaseException:
        if first:
            shutil.rmtree(path / f"{TABLE}.lance", ignore_errors=True)
            with suppress(OSError):
                (path / LOCK).unlink()
                path.rmdir()
        raise


def stored(path: Path, rows: Rows, store: Any) -> None:
    """Have LanceDB store rows, as a stream; raises their error or OutputError."""
    import pyarrow

    failed: list[BaseException] = []

    def stream() -> Iterator[pyarrow.RecordBatch]:
        try:
            yield from rows.batches()
        except BaseException as error:
            failed.append(error)  # LanceDB wraps it into a RuntimeError
            raise

    try:
        store(pyarrow.RecordBatchReader.from_batches(tables.arrow_schema(EMBEDDINGS), stream()))
    except (RuntimeError, ValueError, OSError, DcuError) as error:
        if failed:
            raise failed[0] from error
        said = str(error)
        full = any(each in said for each in FULL)
        raise OutputError(f"{path}: {'No space left on device' if full else reason(error)}") from error


def tidy(table: Table) -> None:
    """Compact a table and remove older versions; where that fails, they only take space."""
    with suppress(RuntimeError, OSError):
        table.optimize(cleanup_older_than=timedelta(seconds=1), delete_unverified=True)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of LanceDB as InvalidInputError."""
    try:
        yield
    except DcuError:
        raise
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        raise InvalidInputError(f"{path}: damaged index ({reason(error)}); delete it and build it anew") from error


def reason(error: Exception) -> str:
    """What LanceDB says, on one line and without the places in its source."""
    said = str(error).partition("\n")[0]
    return said.partition(", /")[0].removeprefix("lance error: ").removeprefix("Invalid input, ")[:300]
