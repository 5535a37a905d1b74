"""What `negexp train` and `negexp evaluate` do, from a checked configuration to files; imports torch."""
