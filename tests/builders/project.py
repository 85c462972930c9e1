"""Where the project lies, and where tests keep what is made once a machine."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".pytest_cache"
