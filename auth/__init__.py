"""Who is calling: accounts, passwords, login tokens and sessions.

The package knows no HTTP, no limits and no 100ms. It is handed `execute(*args)`, a coroutine function that sends one
Redis command and returns the reply.
"""
