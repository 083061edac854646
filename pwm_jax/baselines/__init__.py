"""What extracted policies are compared with."""
