"""What may be done to an account, and by whom."""
