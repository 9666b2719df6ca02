"""webdataset against dcu.shards: throughput, memory, faults, bytes; from the root of the project, see notes.md."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.conftest import tar

ROUNDS = 7


def read_dcu(path: str) -> int:
    """The samples that dcu.shards reads; those with an error are no samples."""
    from dcu import shards

    with open(path, "rb") as file:
        return sum(sample.error is None for sample in shards.samples(file, path))


def read_webdataset(path: str) -> int:
    """The samples that webdataset reads."""
    import webdataset

    return sum(1 for _ in webdataset.WebDataset(path, shardshuffle=False))


def write_dcu(path: str, samples: Iterable[tuple[str, dict[str, bytes]]]) -> None:
    """Write a shard with dcu.shards."""
    from dcu import shards

    with open(path, "wb") as file:
        writer = shards.Writer(file, "measured")
        for key, members in samples:
            for extension, data in members.items():
                writer.add(f"{key}.{extension}", data)
        writer.close()


def write_webdataset(path: str, samples: Iterable[tuple[str, dict[str, bytes]]], **options: Any) -> None:
    """Write a shard with webdataset."""
    import webdataset

    with webdataset.TarWriter(path, **options) as writer:
        for key, members in samples:
            writer.write({"__key__": key} | members)


READERS = {"dcu": read_dcu, "webdataset": read_webdataset}
WRITERS = {"dcu": write_dcu, "webdataset": write_webdataset}


def row(test: str, package: str, result: str) -> None:
    """Print a row of the table."""
    csv.writer(sys.stdout, lineterminator="\n").writerow((test, package, result))


def throughput(shard: str, directory: Path) -> None:
    """Median megabytes per second of reading and of writing, both packages in turns."""
    from dcu import shards

    with open(shard, "rb") as file:
        samples = [(sample.key, sample.members) for sample in shards.samples(file, shard)]
    size = os.path.getsize(shard) / 1e6
    tests: dict[str, dict[str, Callable[[], object]]] = {
        "read (MB/s)": {name: (lambda read=read: read(shard)) for name, read in READERS.items()},
        "write (MB/s)": {
            name: (lambda name=name, write=write: write(str(directory / f"{name}.tar"), samples))
            for name, write in WRITERS.items()
        },
    }
    for test, ways in tests.items():
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                started = time.process_time()
                way()
                seconds[name].append(time.process_time() - started)
        for name, found in seconds.items():
            row(test, name, f"{size / statistics.median(found):.0f}")


def peak(*arguments: str) -> float:
    """MiB of resident memory that a process with this file's functions has at most."""
    command = [sys.executable, __file__, *arguments]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def own_peak() -> float:
    """The same of this process, without what it inherited from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def memory(directory: Path, sizes: Iterable[float] = (1e5, 1e9, 2e9)) -> None:
    """Resident memory at most of a process that reads a shard with one large member."""
    for size in sizes:
        path = directory / "large.tar"
        with tarfile.open(path, "w") as archive, open("/dev/zero", "rb") as zeros:
            member = tarfile.TarInfo("a.jpg")
            member.size = int(size)
            archive.addfile(member, zeros)
        for name in READERS:
            row(f"peak memory, member of {size / 1e9:g} GB (MiB)", name, f"{peak('--read', name, str(path)):.0f}")
        path.unlink()


def faults(directory: Path) -> None:
    """What becomes of faulty shards: keys that are read, errors of samples, what is raised."""
    good = tar([("1.jpg", b"x" * 600), ("2.jpg", b"y" * 600), ("3.jpg", b"z")])
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as archive:
        member = tarfile.TarInfo("1.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    cases = {
        "key twice, not adjacent": tar([("1.jpg", b"x"), ("2.jpg", b"y"), ("1.jpg", b"z")]),
        "extension twice in a sample": tar([("1.jpg", b"x"), ("1.jpg", b"y"), ("2.jpg", b"z")]),
        "truncated in a member": good[: 512 + 1024 + 512 + 300],
        "truncated between members": good[: 512 + 1024],
        "name ../1.jpg": tar([("../1.jpg", b"x"), ("2.jpg", b"y")]),
        "name /etc/1.jpg": tar([("/etc/1.jpg", b"x"), ("2.jpg", b"y")]),
        "symbolic link": link.getvalue(),
        "no tar": b"x" * 3000,
    }
    path = directory / "faulty.tar"
    for case, data in cases.items():
        path.write_bytes(data)
        row(case, "dcu", outcome(lambda: dcu_outcome(str(path))))
        row(case, "webdataset", outcome(lambda: webdataset_outcome(str(path))))
        row(case, "webdataset warn_and_continue", outcome(lambda: webdataset_outcome(str(path), patient=True)))


def outcome(read: Callable[[], Iterable[str]]) -> str:
    """What is read until an error, and the error."""
    found = []
    try:
        for text in read():
            found.append(text)
    except Exception as error:  # whatever it is
        name = type(error).__name__
        found.append(f"raises {name}: {str(error).splitlines()[0].replace(chr(34), '')[:60] if str(error) else ''}")
    return "; ".join(found) or "nothing"


def dcu_outcome(path: str) -> Iterable[str]:
    """Samples and their errors."""
    from dcu import shards

    with open(path, "rb") as file:
        for sample in shards.samples(file, "shard"):
            yield f"{sample.key} refused: {sample.error}" if sample.error else f"{sample.key} read"


def webdataset_outcome(path: str, patient: bool = False) -> Iterable[str]:
    """Samples; a patient reader warns of errors."""
    import webdataset

    handler = webdataset.warn_and_continue if patient else webdataset.reraise_exception
    for sample in webdataset.WebDataset(path, shardshuffle=False, handler=handler, empty_check=False):
        yield f"{sample['__key__']} read"


def equal_bytes(directory: Path) -> None:
    """Whether two writes of the same samples, a second apart, give equal bytes."""
    samples = [("1", {"jpg": b"x", "cls": b"7"}), ("2", {"jpg": b"y", "cls": b"8"})]
    ways: dict[str, tuple[str, Callable[[str], None]]] = {
        "two writes, defaults": ("dcu", lambda path: write_dcu(path, samples)),
        "two writes, defaults ": ("webdataset", lambda path: write_webdataset(path, samples)),
        "two writes, mtime=0": ("webdataset", lambda path: write_webdataset(path, samples, mtime=0)),
    }
    for test, (name, write) in ways.items():
        digests = []
        for _ in range(2):
            write(str(directory / "w.tar"))
            digests.append(hashlib.sha256((directory / "w.tar").read_bytes()).hexdigest())
            time.sleep(1.1)
        row(test.strip(), name, "equal" if digests[0] == digests[1] else "different")


def main() -> None:
    """All measurements, as CSV."""
    if sys.argv[1] == "--read":
        READERS[sys.argv[2]](sys.argv[3])
        print(own_peak())
        return
    print("test,package,result")
    with tempfile.TemporaryDirectory() as place:
        throughput(sys.argv[1], Path(place))
        memory(Path(place))
        faults(Path(place))
        equal_bytes(Path(place))


if __name__ == "__main__":
    main()
