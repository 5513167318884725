"""The subcommands, each a plain function of its parsed arguments."""
