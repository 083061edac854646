"""The stages that learn: pre-training, extraction, the online loop."""
