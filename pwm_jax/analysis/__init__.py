"""Measurements of what the method claims: gradients, smoothness, landscapes."""
