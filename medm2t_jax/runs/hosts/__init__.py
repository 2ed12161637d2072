"""Hosts: how processes start, connect, and use their devices."""
