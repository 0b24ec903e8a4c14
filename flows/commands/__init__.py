"""The commands of `pixelmill`, one module per command, with the options that they share."""
