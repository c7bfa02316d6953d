"""The 100ms client: tokens and REST API. The only package that uses the 100ms secret."""
