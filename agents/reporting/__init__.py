"""What a run leaves for a person to look at: tables, a picture, and a page of its own."""
