"""Measures search and retrieval: results/search.csv and results/retrieval.csv (docs/guide/search.md).

``python -m docs.search features.parquet`` searches 10^5 vectors: the embeddings of a table and noise.
``python -m docs.search --retrieval TAR TAR`` runs ``dcu eval retrieval`` on each data set.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from dcu import tables
from dcu.bench.table import processor
from dcu.jobs import cores
from dcu.search.index import Index
from docs.measure import run, size
from docs.results import RESULTS, Row, as_csv

NOISE = 0.2
"""Length of the noise in that of a vector: copies have a cosine of 0.98 to the original."""
QUERIES = 50


def vectors(path: Path, count: int) -> Iterator[NDArray[np.float32]]:
    """So many vectors: those of a table over and over, each with other noise."""
    rows = [np.asarray(row["embedding"], np.float32) for row in tables.read(path, ["embedding"])]
    rng = np.random.default_rng(0)
    for number in range(count):
        vector = rows[number % len(rows)]
        noise = rng.standard_normal(vector.size).astype(np.float32)
        yield vector + noise * (NOISE * np.linalg.norm(vector) / np.linalg.norm(noise))


def written(path: Path, found: Iterator[NDArray[np.float32]]) -> Path:
    """A table of vectors."""
    with tables.writing(path, tables.EMBEDDINGS) as table:
        for number, vector in enumerate(found):
            row = {"input": f"bins/{number:06}.bin", "key": f"{number:06}", "shard": None, "label": None}
            table.add(row | {"codec": "codec-2", "network": "classifier-2", "embedding": vector})
    return path


def queries(index: Index, exact: bool) -> tuple[float, float]:
    """Seconds of the first query for 10 of rows of the index, and the median of those after it."""
    seconds = []
    for start in np.linspace(0, index.count - 1, QUERIES).astype(int).tolist():
        (vector,) = index.vectors(start, 1)
        started = time.perf_counter()
        index.search(vector, exact=exact)
        seconds.append(time.perf_counter() - started)
    return seconds[0], median(seconds[1:])


def measured(features: Path, count: int) -> Iterator[Row]:
    """A row per step: commands as processes of their own, queries in this process."""
    common: Row = {
        "vectors": count,
        "cores": cores(),
        "machine": processor(),
        "date": datetime.date.today().isoformat(),
    }

    def row(step: str, seconds: float, peak: float | None, space: float | None, recall: float | None = None) -> Row:
        found: Row = {"step": step, "seconds": float(f"{seconds:.4g}"), "peak_mib": peak, "bytes": space}
        return found | {"recall_at_10": recall} | common

    with tempfile.TemporaryDirectory(prefix="dcu-search-") as directory:
        table, place = written(Path(directory, "features.parquet"), vectors(features, count)), Path(directory, "index")
        seconds, peak = run("index", "build", table, "-o", place, "-q")
        yield row("build", seconds, peak, size(place))
        first, later = queries(Index(place), True)
        yield row("first exact query", first, None, None, 1.0)
        yield row("later exact query", later, None, None, 1.0)
        seconds, peak = run("index", "approximate", place)
        yield row("approximate", seconds, peak, size(place))
        yield row("approximate query", queries(Index(place), False)[1], None, None, round(Index(place).recall(), 4))
        seconds, peak = run("index", "duplicates", place)
        yield row("duplicates", seconds, peak, None)


def retrieval(data: Sequence[Path]) -> Iterator[Row]:
    """The rows of ``dcu eval retrieval`` on data sets."""
    for source in data:
        command = [sys.executable, "-m", "dcu", "eval", "retrieval", str(source), "--json", "-q"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        yield from map(json.loads, answer.splitlines())


def write(name: str, rows: Iterator[Row]) -> None:
    """Write a file of results/, and print its rows as they come."""
    found = []
    for row in rows:
        found.append(row)
        print(row, flush=True)
    (RESULTS / f"{name}.csv").write_text(as_csv(found), "utf-8")


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path, nargs="?", help="table of dcu embed")
    parser.add_argument("--vectors", type=int, default=10**5)
    parser.add_argument("--retrieval", type=Path, nargs="+", default=[], metavar="DATA", help="labeled data sets")
    given = parser.parse_args()
    if given.features:
        write("search", measured(given.features, given.vectors))
    if given.retrieval:
        write("retrieval", retrieval(given.retrieval))


if __name__ == "__main__":
    main()
