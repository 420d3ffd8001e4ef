"""The study as a small static site: the notebooks as they were committed, and the ledger."""
