"""Other toolkits on the same data with the same sizes."""
