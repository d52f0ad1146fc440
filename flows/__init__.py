"""What comes after what: Prefect flows, stage processes, the `photoverse` command; no arithmetic on images."""
