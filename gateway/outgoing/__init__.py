"""Outgoing webhooks: tells an operator's own systems about events, signed, and again until they have been told."""
