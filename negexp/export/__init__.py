"""A run leaves negexp: its encoder as a folder of sentence-transformers, with a model card, and on to the hub."""
