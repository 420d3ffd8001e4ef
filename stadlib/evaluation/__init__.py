"""Frame mAP as the official AVA-Kinetics evaluator computes it, its intervals and its diagnosis."""
