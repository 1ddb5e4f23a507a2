"""The measured figures: each benchmark runs the real thing and says on what machine."""
