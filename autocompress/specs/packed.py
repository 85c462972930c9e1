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


def find(kind: str, word: str, name_or_path: str | Path) -> Path:
    """The file of a bare name, or the path itself where it ends with .yaml; `word` is used in messages."""
    text = str(name_or_path)
    if text.endswith(_SUFFIXES):
        path = Path(text).expanduser()
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise AutocompressError(
                f"{word} file '{text}' {what}; give a .yaml file or one of: {', '.join(names(kind))}"
            )
        return path
    if "/" in text or "\\" in text:
        raise AutocompressError(f"{word} file '{text}' does not end with .yaml; give one that does, or a name")
    if text not in names(kind):
        raise unknown_name(word, text, names(kind))
    return folder(kind) / f"{text}.yaml"
