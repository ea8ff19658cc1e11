"""The `magnet` command: one file for each subcommand."""
