"""Settings, where each value comes from, and the directories that files live in."""
