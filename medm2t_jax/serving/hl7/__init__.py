"""The HL7 interfaces of the service: FHIR R4 and CDS Hooks."""
