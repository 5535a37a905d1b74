"""Mining policies, one a module."""
