"""What `scaling.py` measures and computes with: the work, the bytes, the cost model, the paper."""
