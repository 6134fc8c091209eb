"""Reading tokens into a session: prefix reuse, what is read and who is told, statistics, attention."""
