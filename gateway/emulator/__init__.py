"""A local 100ms: REST, tokens and the client's init check, for machines without an account."""
