"""The sixth stage: an export that is published only after its files answered as Keras does.

`held_out` brings the images that decide, `answers` asks about them, `exporting` is the whole of it.
"""
