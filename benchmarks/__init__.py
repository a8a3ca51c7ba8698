"""Measures what the project claims about speed; `make bench` runs all of it and prints figures beside their goals."""
