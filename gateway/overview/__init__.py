"""What operators look at: totals over time, who is online now, budgets, the health of the installation."""
