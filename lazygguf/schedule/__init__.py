"""Keep schedules, the profiles they come from, and scoring profiles of draft models.

Numbers and JSON only; knows nothing of models, files or the native core.
"""
