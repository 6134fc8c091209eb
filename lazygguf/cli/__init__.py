"""The command line: the registry of commands, ``chat``, and what every command shares."""
