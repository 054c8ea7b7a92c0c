"""What is to be thought of what a machine has done and said."""
