"""Settlement: proof that the money is right."""
