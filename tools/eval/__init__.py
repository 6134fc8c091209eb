"""``lazygguf eval``: quality and speed of keep schedules beside baselines."""
