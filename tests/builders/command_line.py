"""The command line, called within this process."""

from __future__ import annotations

import re

from typer.testing import CliRunner, Result

from autocompress.cli import app


def call(*words: object) -> Result:
    """What `autocompress WORDS` ends with."""
    return CliRunner().invoke(app, [str(word) for word in words])


def fault_of(stderr: str) -> str:
    """The one fault that a command ended with, in one line, its last: stages may stand before it."""
    *stages, fault = stderr.splitlines()
    assert fault.startswith("error: "), stderr
    assert all(re.match(r"(reading|measuring|modelling|running|converting|waiting) ", line) for line in stages), stderr
    return fault
