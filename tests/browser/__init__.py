"""The callers' listener and a real browser that an attacker's page is open in."""
