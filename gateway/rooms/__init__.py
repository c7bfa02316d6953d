"""Rooms: their registry, members, invites and guests."""
