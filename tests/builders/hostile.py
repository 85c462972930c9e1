"""Text as a hostile name may hold it."""

from __future__ import annotations

EVIL = "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>&lt;b&gt;"
