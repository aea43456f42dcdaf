"""What others publish as evidence of a TD, read from all the forms in which it is found."""
