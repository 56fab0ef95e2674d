"""Routes that models declare: which model answers, and how."""
