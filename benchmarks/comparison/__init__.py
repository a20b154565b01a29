"""The parts of the benchmark `compare_rewards.py`."""
