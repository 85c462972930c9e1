"""The float network as data: flatbuffer in, numbered layers, traced inputs. Knows nothing of searching."""
