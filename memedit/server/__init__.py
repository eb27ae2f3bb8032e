"""The gateway: an OpenAI-compatible server in front of a model server, the facts API, and the MCP tools.

`memedit.server.app` puts it together; nothing here is imported by the rest of memedit but by its commands.
"""
