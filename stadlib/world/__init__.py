"""A miniature world of drawn people, written to disk in AVA-Kinetics' official layout."""
