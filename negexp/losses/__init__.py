"""Losses, one per module. `negexp.model.loss` has the base class and the batch that a loss receives."""
