"""The prediction table: its columns, and its two formats, which contain the same values."""
