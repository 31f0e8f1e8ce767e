"""The questions of lesson 09 that the reader answers before running the next cell."""
