"""What a scoring process does with one shard: read, decode, predict, write its part of the table."""
