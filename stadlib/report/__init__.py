"""Tables beside the paper's, the ledger of claims and every figure."""
