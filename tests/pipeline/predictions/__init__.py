"""The prediction table: its columns and its two formats, which hold the same values."""
