"""Configurations: one file a study, each with `get_config(preset)` that returns an ml_collections ConfigDict."""
