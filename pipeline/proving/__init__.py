"""The sixth stage: an export that is published only after its files answered as Keras does.

`held_out` brings the images that decide, `parity` compares the answers, `exporting` is the whole of it.
"""
