"""`gateway demo`: Valkey, the local 100ms and the gateway as children of one supervisor, with their data in one folder."""
