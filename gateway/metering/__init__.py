"""Participant-minutes: webhooks of 100ms in, stays out, credited to users, rooms, owners and the installation."""
