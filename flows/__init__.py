"""What comes after what: Prefect flows, stage processes and the `photoverse` command. No arithmetic on images."""
