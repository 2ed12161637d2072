"""Studies of many runs: ablations and sweeps."""
