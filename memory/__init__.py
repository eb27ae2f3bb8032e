"""The edit memory: what is remembered, until when, and how it is found. Imports nothing from the runtime."""
