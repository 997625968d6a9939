"""Training in FP16 under a policy. Importing this package alone loads no torch."""
