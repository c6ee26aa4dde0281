"""The command line: one file a command. Commands translate; the library does the work."""
