"""Traces of requests for OpenTelemetry: the request, what it waited for in Redis, its calls to 100ms."""
