"""Taking studies away, and files of candidates that no study and no night names any more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import optuna

from autocompress.errors import AutocompressError
from autocompress.search.storage import study_records
from autocompress.search.storage.all_studies import Unreadable, stored_studies
from autocompress.search.workers.locks import locked


@dataclass(frozen=True, kw_only=True)
class Unreferenced:
    """The files that nobody names, and the folders that were left as they are, each with the reason."""

    paths: tuple[Path, ...]
    size_bytes: int
    left: tuple[str, ...]


def remove_study(runs: Path, name: str, storage: str | None) -> int:
    """Delete a study and its folder; how many bytes the folder had. The layer tables stay, other studies share them.

    AutocompressError where there is no such study, or it is being searched."""
    study = study_records.load_study(runs, name, storage)
    folder = study_records.study_folder(runs, name)
    with locked(folder):
        if storage is not None:
            optuna.delete_study(study_name=name, storage=study._storage)
        size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        (folder / "study.db").unlink(missing_ok=True)  # first: what is cut behind it is no half study
        shutil.rmtree(folder)
    return size_bytes


def unreferenced(runs: Path, storage: str | None, kept: Collection[str]) -> Unreferenced:
    """The files of candidates in the folders of the studies of `runs`, or of the storage where one is given, that no
    trial of any of these names, nor anything in `kept` (relative to `runs`). The folders of studies that cannot be
    read, or are being searched, are left."""
    named, folders, left = set(kept), list[Path](), list[str]()
    for found in stored_studies(runs, storage):
        if isinstance(found, Unreadable):
            left.append(f"{found.study}: {found.reason}")
            continue
        named |= {artifact for text in found.evaluations if (artifact := json.loads(text).get("artifact"))}
        folders.append(study_records.study_folder(runs, found.name))
    with ExitStack() as stack:
        paths = [path for folder in folders for path in _files(folder, named, runs, stack, left)]
        return Unreferenced(paths=tuple(paths), size_bytes=sum(each.stat().st_size for each in paths), left=tuple(left))


def remove(found: Unreferenced) -> None:
    """Delete these files."""
    for path in found.paths:
        path.unlink(missing_ok=True)


def _files(folder: Path, named: Collection[str], runs: Path, stack: ExitStack, left: list[str]) -> Iterator[Path]:
    if not folder.is_dir():
        return
    try:
        stack.enter_context(locked(folder))
    except AutocompressError as fault:
        left.append(f"{folder.name}: {str(fault).partition(';')[0]}")
        return
    for path in sorted((folder / "artifacts").glob("*")):
        if path.is_file() and path.relative_to(runs).as_posix() not in named:
            yield path
