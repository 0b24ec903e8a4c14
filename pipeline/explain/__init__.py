"""Replay of the prediction of one image, stage by stage, compared with its row in a prediction table."""
