"""`gateway demo`: Valkey, the local 100ms and the gateway, run by one supervisor with their data in one folder."""
