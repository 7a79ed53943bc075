"""A Dataset in the form that each framework expects."""
