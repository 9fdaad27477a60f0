"""Words on a terminal: one file per command, no logic of its own."""
