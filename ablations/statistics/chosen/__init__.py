"""What is said of arms and effects that the scores themselves have chosen: the best, the largest."""
