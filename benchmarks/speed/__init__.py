"""What `throughput.py` measures with: one opponent or one question a file."""
