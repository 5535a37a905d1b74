"""Embeddings that are kept on the disk: of an encoder that nothing has trained yet, and of texts that are searched."""
