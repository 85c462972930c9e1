"""Where the files that come with the package lie: next to it in a wheel, at the top level in a checkout."""

from __future__ import annotations

from pathlib import Path

from autocompress.errors import AutocompressError, unknown_name

_PACKAGE = Path(__file__).resolve().parent.parent
_SUFFIXES = (".yaml", ".yml")


def folder(kind: str) -> Path:
    """The folder `kind` (search_spaces, device_profiles) of this installation."""
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / kind).is_dir():
            return parent / kind
    raise AutocompressError(
        f"the folder '{kind}' is missing beside {_PACKAGE}; install autocompress again or give a .yaml file"
    )


def names(kind: str) -> tuple[str, ...]:
    """The names of all files of that kind, sorted."""
    return tuple(sorted(path.stem for path in folder(kind).glob("*.yaml")))


def find(kind: str, word: str, name_or_path: str | Path, own: Path | None = None) -> Path:
    """The file of a bare name, or the path itself where it ends with .yaml; `word` is used in messages. `own`: a
    folder of the user's that is looked into first."""
    text = str(name_or_path)
    known = sorted({*names(kind), *(path.stem for path in own.glob("*.yaml"))} if own else names(kind))
    if text.endswith(_SUFFIXES):
        path = Path(text).expanduser()
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise AutocompressError(f"{word} file '{text}' {what}; give a .yaml file or one of: {', '.join(known)}")
        return path
    if "/" in text or "\\" in text:
        raise AutocompressError(f"{word} file '{text}' does not end with .yaml; give one that does, or a name")
    if text not in known:
        raise unknown_name(word, text, known)
    if own is not None and (own / f"{text}.yaml").is_file():
        return own / f"{text}.yaml"
    return folder(kind) / f"{text}.yaml"
