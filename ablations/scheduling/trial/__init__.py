"""What one trial of a study adds to an ordinary run."""
