"""Settings, the sources of their values, and the directories and files that processes share."""
