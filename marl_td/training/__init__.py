"""Training runs: settings, the experiment, its files."""
