"""torchac and the decoder of tiles beside it (`coder.cpp`), built once and from then on loaded straight from the cache.

``import torchac`` would look for ninja and a compiler at every start, print on standard output, and wait for ever
on the lock of a build that was killed. Here the extension is built in a fresh temporary folder, torchac's part from the
source that its package carries, and moved into the cache under a name that holds every version it depends on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from dcu import store
from dcu.errors import UnavailableError

EXTENSION = "dcu_coder"
SOURCE = Path(__file__).parent / "src/coder.cpp"
HINT = (
    "torchac must be compiled once: install a C++ compiler and Python's headers (Debian: g++ and python3-dev), "
    "and ninja"
)


def cache_folder() -> Path:
    """Where the built extension is kept: $DCU_CACHE, or dcu/ in the user's cache folder."""
    if chosen := os.environ.get("DCU_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcu"


def built_extension() -> Path:
    """The extension's place in the cache; it may not be there yet."""
    try:
        version = importlib.metadata.version("torchac")
    except importlib.metadata.PackageNotFoundError as error:
        raise UnavailableError("torchac is not installed") from error
    source = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    made_of = f"{source}-torchac-{version}-torch-{torch.__version__}"
    return cache_folder() / f"coder-{made_of}-{sys.implementation.cache_tag}-{platform.machine()}.so"


def load_extension(path: Path) -> ModuleType:
    """Import the built extension."""
    spec = importlib.util.spec_from_file_location(EXTENSION, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def standard_output_to_error() -> Iterator[None]:
    """Turn descriptor 1 to 2: standard output holds streams and nothing else."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def compile_extension(folder: Path) -> Path:
    """Build torchac's extension in an empty folder.

    Raises
    ------
    UnavailableError
        No compiler, no headers, no ninja.
    """
    package = importlib.util.find_spec("torchac")
    if package is None or package.origin is None:
        raise UnavailableError("torchac is not installed")
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])  # an environment's own ninja
    try:
        if not shutil.which(os.environ.get("CXX", "c++")) or not shutil.which("ninja"):
            raise UnavailableError(HINT)
        print("dcu: compiling torchac, once", file=sys.stderr, flush=True)
        from torch.utils import cpp_extension

        with standard_output_to_error():
            cpp_extension.load(
                EXTENSION,
                [str(SOURCE)],
                extra_cflags=["-O3"],
                extra_include_paths=[str(Path(package.origin).parent / "backend")],
                build_directory=str(folder),
            )
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        if os.environ.get("DCU_DEBUG") == "1":
            print(error, file=sys.stderr)
        raise UnavailableError(HINT) from error
    finally:
        os.environ["PATH"] = path
    return next(folder.glob("*.so"))


@functools.cache
def backend() -> ModuleType:
    """The compiled functions, from the cache if they are there."""
    place = built_extension()
    with contextlib.suppress(ImportError, OSError):
        if place.exists():
            return load_extension(place)
    with tempfile.TemporaryDirectory(prefix="dcu-") as temporary:
        built = compile_extension(Path(temporary))
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            store.replace(place, built.read_bytes())
        except OSError:
            print("dcu: torchac could not be kept: the cache folder is read-only", file=sys.stderr)
            return load_extension(built)
    return load_extension(place)


def encode(tables: Tensor, symbols: Tensor) -> bytes:
    """Arithmetic-code N symbols (N,) int16 with cumulative tables (N, L + 1) int16 of 16 bits."""
    return bytes(backend().encode_cdf(tables, symbols))
