"""The matrix of engines: every engine predicts the probabilities of Keras.

`python -m tests.engines` runs all of it and writes the table in `docs/bundle.md`.
"""
