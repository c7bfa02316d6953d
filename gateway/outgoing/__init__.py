"""Outgoing webhooks: sends signed events to an operator's own systems, and repeats each until it is received."""
