"""Valid files of every format, changed at random: `make fuzz MINUTES=5`; a few with every test run."""
