"""Asking services over HTTP, and being one: what all that is scored elsewhere has in common."""
