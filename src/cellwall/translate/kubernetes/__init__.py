"""Kubernetes NetworkPolicy: manifests to documents, and documents to manifests."""
