"""The commands of lazygguf beside chat: each module is one command, a thin main over the library."""
