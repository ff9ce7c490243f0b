"""Lets unchanged BenchMARL programs find marl_td's algorithms, models and tasks."""
