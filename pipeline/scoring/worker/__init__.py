"""Scoring of one shard in a worker process: read, decode, predict, write a part of the table."""
