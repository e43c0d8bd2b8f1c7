"""Models: the built-in BetaVAE, models of the user, and the adapter that calls either."""
