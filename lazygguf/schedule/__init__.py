"""How much is kept where: keep schedules, the profiles they come from, and how a draft model scores.

Numbers and JSON only; knows nothing of models, files or the native core.
"""
