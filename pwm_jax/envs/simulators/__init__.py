"""Tasks of pure-JAX simulators."""
