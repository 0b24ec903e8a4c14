"""One image predicted again, stage by stage, and compared with its row of a prediction table."""
