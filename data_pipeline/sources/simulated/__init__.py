"""A simulated hospital in MIMIC's raw layout (docs/simulated_hospital.md)."""

from __future__ import annotations

from data_pipeline.sources.simulated.hospital import planted_effects, write_hospital

__all__ = ['planted_effects', 'write_hospital']
