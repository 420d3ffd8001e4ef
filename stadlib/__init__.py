"""A study of "Relation Modeling in Spatio-Temporal Action Localization" (Feng et al. 2021)."""
