"""The work of a survey: pictures in, mergeable results out."""
