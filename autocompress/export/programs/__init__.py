"""The programs that an exported bundle carries. They need nothing of ours; `search/export.py` copies them as text."""
