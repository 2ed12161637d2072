"""ECG recordings: reading files, conditioning signals, report terms."""
