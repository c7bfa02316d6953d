"""Use cases of accounts: administration, limits, password changes, registration."""
