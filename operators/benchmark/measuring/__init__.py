"""Times, memory and the ceilings that they are measured against."""
