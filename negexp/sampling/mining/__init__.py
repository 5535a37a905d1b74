"""Mining policies, one per module."""
