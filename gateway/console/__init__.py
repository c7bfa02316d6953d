"""The operators' console: the files of the page at /operator. What the page shows comes from /api."""
