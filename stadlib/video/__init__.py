"""Actions of the people in a video of one's own."""
