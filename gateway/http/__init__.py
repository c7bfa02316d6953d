"""Request processing before and after the handler."""
