"""Somebody's own video: networks that watch it, what they see, and how that is drawn."""
