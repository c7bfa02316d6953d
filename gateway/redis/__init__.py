"""The connections to Redis."""
