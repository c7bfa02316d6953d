"""Metrics for Prometheus: what happened in all processes, and the state of Redis, 100ms, webhooks and budgets."""
