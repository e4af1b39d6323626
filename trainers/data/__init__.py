"""Rows to encoded examples."""
