"""Checks by subject: each names the setting, its value, what was expected and what to do."""
