"""Judging models by what they write, side by side: `textgym eval`."""
