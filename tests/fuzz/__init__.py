"""Valid files of every format, mutated at random: `make fuzz MINUTES=5`; a few with every test run."""
