"""The prediction table: its columns, its two forms, and that no value changes on the way."""
