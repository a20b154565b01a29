"""Long runs: does anything grow that should not?"""
