"""The commands of `photoverse`, one file a subject. Each imports what it needs when it runs."""
