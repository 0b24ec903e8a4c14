"""Prefect flows and the command line, over the stages in `pipeline`."""
