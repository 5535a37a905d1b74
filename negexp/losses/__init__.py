"""Losses, one a module; see `negexp.model.loss` for what a loss sees."""
