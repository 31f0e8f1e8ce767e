"""Widgets and figures that draw attention; they take arrays and labels, and need no torch."""
