"""The stages of dvc.yaml: each reads, calls the library, and writes."""
