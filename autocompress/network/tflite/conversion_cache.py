"""Converted networks, kept in the user's cache by what they were made of: the file's content and the versions of what
reads and converts it. Any number of processes may use it at once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from autocompress.files import exclusive, unchanged, write_whole

MOST = 32  # networks that are kept, those that were used last
_FORM = "1"  # of what is kept; raise it when the conversion itself changes
_PACKAGES = ("tensorflow", "keras", "tf-keras")
_log = logging.getLogger(__name__)


def folder() -> Path:
    """$XDG_CACHE_HOME/autocompress/converted, by default below ~/.cache; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    root = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return root / "autocompress" / "converted"


def converted(source: Path, convert: Callable[[Path], bytes]) -> bytes:
    """The network that `convert` makes of the file or folder `source`, from the cache where it holds it. Of several
    processes that want the same one, one converts. A cache that cannot be written is done without; what `convert`
    raises is never kept."""
    key = _key(source)
    if key is None:
        return convert(source)
    with contextlib.ExitStack() as stack:
        found = _read(key)
        if found is None and _entered(stack, folder() / f".{key}.lock"):
            found = _read(key)  # by whom we waited for
        if found is not None:
            _log.debug("%s was converted before: %s", source.name, folder())
            return found
        model = convert(source)
        _keep(key, model)
        return model


def _key(source: Path) -> str | None:
    """SHA-256 of all that a conversion depends on; None where a version is not known."""
    digest = hashlib.sha256(_FORM.encode())
    try:
        for package in _PACKAGES:
            digest.update(f"\0{package} {metadata.version(package)}".encode())
    except metadata.PackageNotFoundError:  # another distribution of it, whose version is not known by this name
        return None
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    for path in files:
        name = path.relative_to(source).as_posix() if path != source else source.suffix.lower()
        digest.update(f"\0{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _entered(stack: contextlib.ExitStack, lock: Path) -> bool:
    """Whether the lock is held now, until the stack ends; not where the cache cannot be written."""
    try:
        stack.enter_context(exclusive(lock))
    except OSError as fault:
        _log.debug("converted networks cannot be kept in %s: %s", lock.parent, fault.strerror)
        return False
    return True


def _read(key: str) -> bytes | None:
    """What is kept under a key, if it still is what was kept; its name ends in its SHA-256."""
    for path in folder().glob(f"{key}-*.tflite"):
        model = unchanged(path, path.stem.partition("-")[2])
        if model is not None:
            with contextlib.suppress(OSError):  # a cache of somebody else's: its order stays
                os.utime(path)
            return model
    return None


def _keep(key: str, model: bytes) -> None:
    try:
        write_whole(folder() / f"{key}-{hashlib.sha256(model).hexdigest()}.tflite", model)
        kept = sorted(folder().glob("*.tflite"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-MOST]:
            path.unlink(missing_ok=True)
    except OSError as fault:  # the disk is full, the folder not ours, or another process removed one of them
        _log.debug("the converted network cannot be kept in %s: %s", folder(), fault.strerror)
