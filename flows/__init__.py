"""What comes after what: flows, stage processes and the `photoverse` command. No arithmetic on images."""
