"""A run answers: the nearest counters of new points, among its own corpus or other documents."""
