"""How fast each algorithm learns, by tokens and by seconds; behind `algorithms.py`."""
