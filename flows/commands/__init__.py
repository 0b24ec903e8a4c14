"""The commands of `pixelmill`, one module each."""
