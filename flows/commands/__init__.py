"""The commands of `pixelmill`, one module per command."""
