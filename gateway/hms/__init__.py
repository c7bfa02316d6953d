"""Everything that knows 100ms: its tokens and its REST API. The only package that sees the 100ms secret."""
