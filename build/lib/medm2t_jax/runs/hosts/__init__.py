"""Hosts: how processes start, find each other, and use their devices."""
