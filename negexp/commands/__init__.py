"""The commands: each turns a checked configuration into a run of the parts below it."""
