"""Trains the small models that ship with memedit. Needs the public data; nothing at run time imports it."""
