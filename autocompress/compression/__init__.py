"""The layer solver and the builder: arrays, layers and bytes in, a verified `.tflite` out."""
