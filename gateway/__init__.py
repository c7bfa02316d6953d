"""An authenticated, rate-limited gateway in front of 100ms live video."""

__version__ = "0.1.0"
