"""Questions answered by walk-forwards: studies are data, their trials are ordinary runs."""
