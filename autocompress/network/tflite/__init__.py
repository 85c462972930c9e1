"""TFLite files: converting, reading, checking, writing, running."""
