"""Pictures a person can look at, one call each; matplotlib is imported when one is drawn."""
