"""``--executor ray``: workers of a Ray cluster process shards with the stages of a local run.

::

    shards ── Ray Data ── workers: Run.process_shard ── rows, notes ── report
                          (models loaded once)

A shard is an item. Ray gives the shards of a worker that is lost to another one, which skips those that are finished.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcu import __version__, remote, store
from dcu.cli import console, notes, options
from dcu.cli.files import Inputs, Source
from dcu.cli.outputs import Output
from dcu.cli.report import Report
from dcu.cli.run import Prepare, Run, RunError, Settings, Work
from dcu.errors import DcuError, UnavailableError, UsageError, of_exit_code
from dcu.jobs import cores

SECONDS_TO_CONNECT = 5
TRIES_TO_REMOVE = 50
NO_STATISTICS = {"RAY_USAGE_STATS_ENABLED": "0"}
"""None are sent to Ray's makers."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Where there can be no cluster of several machines, Ray binds to the loopback interface alone."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to process the shards of a run.

    ``models`` are names or paths of models with the SHA-256 of their weights; ``directory`` is what relative paths are
    relative to, those of models, too; None where there are none.
    """

    targets: Sequence[Output]
    prepare: Prepare
    settings: Settings
    models: Mapping[str, str]
    failed_before: frozenset[str] | None
    directory: str | None
    level: int
    version: str = __version__

    def begin(self) -> Work:
        """Prepare this process; the work on entries. Raises UnavailableError where the machine lacks something."""
        host = socket.gethostname()
        if self.version != __version__:
            raise UnavailableError(f"worker on {host}: has dcu {__version__}, not {self.version}")
        if self.directory:
            try:
                os.chdir(self.directory)
            except OSError as error:
                raise UnavailableError(f"worker on {host}: {self.directory}: {error.strerror}") from error
        for name, sha256 in self.models.items():
            if store.find(name).sha256 != sha256:
                raise UnavailableError(f"worker on {host}: {name} has other weights than here")
        _, device = options.begin(self.settings.jobs, None, self.settings.device)
        return self.prepare(device)


class Rows:
    """The rows of a table, in memory."""

    failed = 0

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.rows.append(dict(row))

    def close(self) -> None:
        """Nothing is left to be written."""


class Recorder(Report):
    """Keeps what is to be reported where the command was started: rows, and facts by the name of the input."""

    def __init__(self, found: Inputs, failed_before: frozenset[str] | None) -> None:
        super().__init__(found, json=False, quiet=True, prints=False)
        self.failed_before, self.kept = failed_before, Rows()
        self.table = self.kept
        self.facts: dict[str, dict[str, Any]] = {}

    def complain(self, message: str) -> None:
        """The row has it."""

    def show(self, facts: dict[str, Any], lines: Sequence[str]) -> None:
        """Keep the facts."""
        if facts:
            self.facts[facts["input"]] = facts


class Worker:
    """Processes shards in a process of the cluster."""

    def __init__(self, job: Job) -> None:
        self.job, self.notes = job, list[str]()
        self.work: Work | None = None

    def __call__(self, item: dict[str, str]) -> dict[str, str]:
        """What was recorded of a shard, or why the run ends, as JSON."""
        try:
            answer = self.process(
                Source(item["name"], Path(item["path"]) if item["path"] else None, Path(item["relative"]), True)
            )
        except (DcuError, RunError) as error:
            cause = error.__cause__ if isinstance(error, RunError) else error
            answer = {"ended": [getattr(cause, "exit_code", 1), str(cause)]}
        return {"answer": json.dumps(answer)}

    def process(self, shard: Source) -> dict[str, Any]:
        """The rows, facts and notes of a shard."""
        notes.install(self.notes.append)
        logging.getLogger("dcu").setLevel(self.job.level)
        self.notes.clear()
        work = self.work = self.work or self.job.begin()
        found = Inputs([shard.name], [shard])
        recorder = Recorder(found, self.job.failed_before)
        run = Run(found, self.job.targets, lambda device: work, recorder, self.job.settings)
        run.process_shard(shard, console.Counter(None, "", visible=False))
        return {"rows": recorder.kept.rows, "facts": recorder.facts, "notes": self.notes}


@dataclass(frozen=True)
class RayCluster:
    """A cluster, and how many workers of what size process shards on it.

    Parameters
    ----------
    address : str, optional
        HOST:PORT of its head, or ``auto``; None starts one on this machine, for as long as the run takes.
    workers : int, optional
        At most; None for as many as the cluster has room for.
    gpus : float
        Of each worker.
    models : mapping
        Names or paths of the models to the SHA-256 of their weights, which the workers' must have too.
    """

    address: str | None
    workers: int | None
    gpus: float
    models: Mapping[str, str]

    def __call__(self, run: Run, shown: console.Counter) -> None:
        """Process all shards of a run; raises UnavailableError."""
        shards = [source for source in run.found.sources if run.report.wanted_shard(source.name)]
        named = [source.name for source in shards] + [str(target.places.directory) for target in run.targets]
        models = list(filter(store.is_path, self.models))
        job = Job(
            run.targets,
            run.prepare,
            run.settings,
            self.models,
            run.report.failed_before,
            None if all(map(remote.is_url, [*named, *models])) else os.getcwd(),
            logging.getLogger("dcu").level,
        )
        with self.started():
            for answer in self.answers(shards, job):
                replay(answer, run.report, shown)

    @contextmanager
    def started(self) -> Iterator[None]:
        """A connection to the cluster; raises UnavailableError."""
        check_address(self.address)
        import ray

        own: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(console.stderr_alone())
            if self.address is None:
                directory = stack.enter_context(temporary_directory())
                own = {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": directory}
            try:
                ray.init(self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
                stack.callback(ray.shutdown)
                yield
            except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
                raise UnavailableError(f"Ray: {remote.one_line(error)}") from error

    def answers(self, shards: Sequence[Source], job: Job) -> Iterator[dict[str, Any]]:
        """What workers recorded of shards, in order."""
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_items

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        count = min(len(shards), self.workers or room(nodes, job.settings.jobs, self.gpus))
        items = [{"name": s.name, "path": str(s.path or ""), "relative": str(s.relative)} for s in shards]
        rows = from_items(items, override_num_blocks=len(items)).map(
            Worker,  # type: ignore[arg-type]
            fn_constructor_args=(job,),
            compute=ActorPoolStrategy(size=max(1, count)),
            num_cpus=job.settings.jobs,
            num_gpus=self.gpus or None,
        )
        for row in rows.iter_rows():
            yield json.loads(row["answer"])


@contextmanager
def temporary_directory() -> Iterator[str]:
    """A directory for Ray's files, removed at the end: once its processes, which are being killed, write no more."""
    directory = tempfile.mkdtemp(prefix="dcu-ray-")
    try:
        yield directory
    finally:
        for _ in range(TRIES_TO_REMOVE):
            shutil.rmtree(directory, ignore_errors=True)
            if not os.path.exists(directory):
                break
            time.sleep(0.1)


def check_address(address: str | None) -> None:
    """Raise UnavailableError where nothing answers at HOST:PORT: Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UnavailableError(f"--address {address}: {remote.one_line(error)}") from error


def room(nodes: Iterable[Mapping[str, Any]], cpus: int, gpus: float) -> int:
    """How many workers fit on the machines of a cluster; raises UnavailableError where none does."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    fitting = [int(each.get("CPU", 0) // cpus) for each in resources]
    if gpus:
        fitting = [min(count, int(each.get("GPU", 0) // gpus)) for count, each in zip(fitting, resources, strict=True)]
    if not sum(fitting):
        needed = f"{cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        raise UnavailableError(f"no machine of the cluster has {needed} for a worker")
    return sum(fitting)


def replay(answer: Mapping[str, Any], report: Report, shown: console.Counter) -> None:
    """Report what a worker recorded of a shard; raises what ended its run."""
    if ended := answer.get("ended"):
        raise of_exit_code(*ended)
    for line in answer["notes"]:
        console.complain(line)
    for row in answer["rows"]:
        shown.count()
        name, status = row["input"], row["status"]
        report.wanted(name)
        if status == "skipped":
            report.skip(name)
        elif status == "failed":
            report.fail(name, of_exit_code(row["exit_code"], row["message"]), row)
        else:
            with report.of(name) as recorded:
                recorded |= {column: value for column, value in row.items() if value is not None}
                report.show(answer["facts"].get(name, {}), [])


def networks(kind: str, named: str | None) -> Iterator[tuple[str, store.Model]]:
    """The network that is named, or those of all installed codecs, by their names; looked up when they are needed."""
    models = [store.find(named)] if named else store.default_networks(kind)
    yield from ((named or model.name, model) for model in models)


def chosen(
    executor: options.ExecutorName,
    address: str | None,
    workers: int | None,
    gpus: float | None,
    found: Inputs,
    targets: Sequence[Output],
    models: Iterable[tuple[str, store.Model]],
) -> RayCluster | None:
    """The cluster that options name; None to run on this machine.

    Raises
    ------
    UsageError
        An option of Ray without it, or inputs or outputs that are no shards in directories.
    UnavailableError
        Ray is not installed.
    """
    if executor == "local":
        for option, given in (("--address", address), ("--workers", workers), ("--gpus-per-worker", gpus)):
            if given is not None:
                raise UsageError(f"{option} needs --executor ray")
        return None
    if not found.shards_only or any(source.name == "-" for source in found.sources):
        raise UsageError("--executor ray processes shards (.tar), and no pipe")
    if not targets or any(target.places.directory is None for target in targets):
        raise UsageError("--executor ray writes one file per shard: name a directory with -o")
    os.environ |= NO_STATISTICS if address else NO_STATISTICS | LOOPBACK  # read when Ray is imported
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UnavailableError("--executor ray needs Ray: pip install 'dcu-codec[ray]'") from error
    return RayCluster(address, workers, gpus or 0.0, {name: model.sha256 for name, model in models})
