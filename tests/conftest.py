"""What every test needs: the user's own device profiles of this machine must not be found."""

from __future__ import annotations

import os
import tempfile

# Set before any test runs, so that child processes inherit it.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="autocompress-tests-")
