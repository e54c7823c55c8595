"""What others need to believe a study: its plan registered before the first trial, and the environment that ran it."""
