"""Recipes: one page each."""
