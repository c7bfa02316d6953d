"""May this caller act now, and how much has he used: exact limits, all or none, in one Redis script call.

The package knows no HTTP, no users and no 100ms. It is handed `execute(*args)`, a coroutine function that sends one
Redis command, and decides about *subjects*, which are opaque strings.
"""
