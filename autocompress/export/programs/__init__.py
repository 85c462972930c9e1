"""The programs that an exported bundle carries. They need nothing of ours; `export/bundle.py` copies them as text."""
