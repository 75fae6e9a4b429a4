"""Time, memory, energy, and where the run happened."""
